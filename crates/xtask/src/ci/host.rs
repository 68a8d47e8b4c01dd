//! The checks that need nothing but Rust's own tools.

use anyhow::Result;

use super::bare::BARE_CRATES;
use super::report::Outcome;
use super::tools::{cargo, root, run, rustflags};

/// The fuzz targets have a workspace of their own, where their flags reach nothing else.
const FUZZ: &str = "fuzz/Cargo.toml";

/// So has every board, and what boards have in common.
const FIRMWARE: [&str; 5] = ["app", "display", "qemu", "qemu-cortex-m", "qemu-riscv"];

/// What of that is tested without a board.
const TESTED: [&str; 2] = ["app", "display"];

/// What no program of the workspace uses, but chips do.
const CARDS: [&str; 2] = ["--features", "llamita-storage/sd"];

/// Every file is as rustfmt would write it.
pub fn format() -> Result<Outcome> {
    run(cargo("fmt").args(["--all", "--check"]))?;
    if root().join(FUZZ).exists() {
        run(cargo("fmt").args(["--check", "--manifest-path", FUZZ]))?;
    }
    for name in FIRMWARE {
        let manifest = format!("firmware/{name}/Cargo.toml");
        if root().join(&manifest).exists() {
            run(cargo("fmt").args(["--check", "--manifest-path", &manifest]))?;
        }
    }
    Ok(Outcome::Passed)
}

/// No warnings, with the standard library and without it.
pub fn clippy() -> Result<Outcome> {
    run(cargo("clippy").args(["--workspace", "--all-targets"]).args(CARDS).args(["--", "-D", "warnings"]))?;
    for (name, features) in BARE_CRATES {
        // One by one: features of crates that are built together are merged.
        let mut command = cargo("clippy");
        command.args(["--package", name, "--no-default-features", "--features", features]);
        run(command.args(["--", "-D", "warnings"]))?;
    }
    Ok(Outcome::Passed)
}

/// Every link in the documentation leads somewhere.
pub fn docs() -> Result<Outcome> {
    run(cargo("doc").args(["--workspace", "--no-deps"]).args(CARDS).env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(Outcome::Passed)
}

/// The tests of every crate, as anyone runs them.
pub fn tests() -> Result<Outcome> {
    run(cargo("test").arg("--workspace").args(CARDS))?;
    Ok(Outcome::Passed)
}

/// The console and the display of boards, tested on this machine.
pub fn firmware() -> Result<Outcome> {
    for name in TESTED {
        let manifest = format!("firmware/{name}/Cargo.toml");
        let of_crate = ["--manifest-path", &manifest, "--all-features"];
        run(cargo("clippy").args(of_crate).args(["--all-targets", "--", "-D", "warnings"]))?;
        run(cargo("doc").args(of_crate).arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings"))?;
        run(cargo("test").args(of_crate))?;
    }
    Ok(Outcome::Passed)
}

/// The fuzz targets still compile.
pub fn fuzz() -> Result<Outcome> {
    if !root().join(FUZZ).exists() {
        return Ok(Outcome::Skipped("there are no fuzz targets".to_owned()));
    }
    // The flag is what `cargo fuzz` compiles them with.
    run(cargo("check").args(["--manifest-path", FUZZ]).env("RUSTFLAGS", rustflags("--cfg fuzzing")))?;
    Ok(Outcome::Passed)
}
