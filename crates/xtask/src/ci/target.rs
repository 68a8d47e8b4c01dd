//! Compiling for other machines, with whatever Rust is at hand.
//!
//! rustup offers each target's libraries compiled. Where only a distribution's mirror can be reached, its
//! compiler brings the libraries' sources instead, and cargo compiles them on the way.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::tools::{cargo, output};

/// What programs for a target are linked with.
#[derive(Clone, Copy)]
pub enum Library {
    /// Programs without an operating system.
    Core,
    /// Programs with one, and their tests.
    Std,
}

/// A machine that can be compiled for, and how.
pub struct Target {
    triple: &'static str,
    library: Library,
    /// The compiler that compiles its own libraries; none where they are installed compiled.
    from_source: Option<PathBuf>,
    /// A linker in place of the target's own, which distributions leave out of their packages.
    linker: Option<PathBuf>,
}

impl Target {
    /// Look for the libraries of a target: compiled, then in source.
    pub fn find(triple: &'static str, library: Library) -> Result<Option<Self>> {
        let default = Compiler::ask(rustc())?;
        if default.sysroot.join("lib/rustlib").join(triple).join("lib").is_dir() {
            return Ok(Some(Self { triple, library, from_source: None, linker: None }));
        }
        let linker = default.linker();
        let distribution = Path::new("/usr/bin/rustc");
        let others = distribution.is_file().then(|| Compiler::ask(distribution.into())).transpose()?;
        let from_source = [Some(default), others].into_iter().flatten().find(Compiler::can_build_libraries);
        Ok(from_source.map(|compiler| {
            // Programs without an operating system are linked with Rust's own linker.
            let own = matches!(library, Library::Core);
            let borrow = own && !compiler.linker().is_file() && linker.is_file();
            let linker = borrow.then_some(linker);
            Self { triple, library, from_source: Some(compiler.program), linker }
        }))
    }

    /// A call of cargo that compiles for this target.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = cargo(subcommand);
        command.args(["--target", self.triple]);
        if let Some(rustc) = &self.from_source {
            // Cargo's option is not stable; this is how its own release asks to be trusted with it.
            command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            command.args(match self.library {
                Library::Core => &["-Zbuild-std=core"][..],
                // Without the code that prints backtraces.
                Library::Std => &["-Zbuild-std=std,panic_unwind,test", "-Zbuild-std-features=panic-unwind"],
            });
            // The profile optimises dependencies for the sake of tests with models. The libraries are
            // dependencies too, and optimising them would take most of the time of all checks.
            command.args(["--config", "profile.dev.package.\"*\".opt-level=0"]);
            command.env("CARGO_PROFILE_DEV_DEBUG", "false");
        }
        if let Some(linker) = &self.linker {
            self.set(&mut command, "LINKER", linker);
        }
        command
    }

    /// Whether the target's libraries are compiled on the way, with the settings of the program that they are for.
    pub fn is_from_source(&self) -> bool {
        self.from_source.is_some()
    }

    /// Set one of cargo's options for this target.
    pub fn set(&self, command: &mut Command, option: &str, value: impl AsRef<OsStr>) {
        let triple = self.triple.replace('-', "_").to_uppercase();
        command.env(format!("CARGO_TARGET_{triple}_{option}"), value);
    }
}

/// What a compiler says of itself.
struct Compiler {
    program: PathBuf,
    sysroot: PathBuf,
    host: String,
    /// Major and minor version.
    version: (u32, u32),
}

impl Compiler {
    fn ask(program: PathBuf) -> Result<Self> {
        let sysroot = output(Command::new(&program).args(["--print", "sysroot"]))?.into();
        let description = output(Command::new(&program).arg("-vV"))?;
        let field = |name: &str| {
            let line = description.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).with_context(|| format!("{} -vV has no line {name}", program.display()))
        };
        let (host, version) = (field("host:")?.to_owned(), parse_version(field("release:")?)?);
        Ok(Self { program, sysroot, host, version })
    }

    /// Whether the sources of its libraries are installed, and it knows this project's Rust.
    fn can_build_libraries(&self) -> bool {
        let needed = parse_version(env!("CARGO_PKG_RUST_VERSION"));
        needed.is_ok_and(|needed| self.version >= needed)
            && self.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
    }

    fn linker(&self) -> PathBuf {
        let program = format!("rust-lld{}", env::consts::EXE_SUFFIX);
        self.sysroot.join("lib/rustlib").join(&self.host).join("bin").join(program)
    }
}

/// The compiler that cargo would call.
fn rustc() -> PathBuf {
    env::var_os("RUSTC").map_or_else(rustc_of_path, PathBuf::from)
}

fn rustc_of_path() -> PathBuf {
    "rustc".into()
}

/// The first two numbers of a version such as `1.95.0-nightly`.
fn parse_version(version: &str) -> Result<(u32, u32)> {
    let mut numbers = version.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => anyhow::bail!("{version} is no version of Rust"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(parse_version("1.95").unwrap(), (1, 95));
        assert!(parse_version("1.100.0-nightly").unwrap() > parse_version("1.95.0").unwrap());
        assert!(parse_version("1").is_err());
    }
}
