//! Finding and running programs.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A call of the cargo that runs this program, at the root of the workspace.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).arg(subcommand);
    command
}

/// Run a command to its end, with its output let through; its failure is an error that can be pasted into a
/// shell.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", in_words(command)))?;
    if !status.success() {
        bail!("{status}: {}", in_words(command));
    }
    Ok(())
}

/// Run a command and return what it printed, without the white space around it.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", in_words(command)))?;
    if !output.status.success() {
        bail!("{}: {}\n{}", output.status, in_words(command), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a program is one of those that the shell would find.
pub fn is_installed(program: &str) -> bool {
    let file = format!("{program}{}", env::consts::EXE_SUFFIX);
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(&file).is_file()))
}

/// The RUSTFLAGS of the environment with more flags behind them.
pub fn rustflags(more: &str) -> String {
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    format!("{flags} {more}").trim().to_owned()
}

/// A command as one would type it.
fn in_words(command: &Command) -> String {
    let mut words = String::new();
    for (name, value) in command.get_envs() {
        let _ = write!(words, "{}={} ", name.display(), quoted(value.unwrap_or_default()));
    }
    let program = Path::new(command.get_program()).file_stem().unwrap_or(command.get_program());
    let _ = write!(words, "{}", program.display());
    for argument in command.get_args() {
        let _ = write!(words, " {}", quoted(argument));
    }
    words
}

fn quoted(word: &OsStr) -> String {
    let word = word.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "-_=+,./:".contains(c);
    if word.is_empty() || !word.chars().all(plain) { format!("'{word}'") } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_in_words_can_be_pasted() {
        let mut command = Command::new("/somewhere/cargo");
        command.args(["test", "two words", "a=\"*\""]).env("RUSTFLAGS", "-C target-feature=+simd128");
        assert_eq!(
            in_words(&command),
            "RUSTFLAGS='-C target-feature=+simd128' cargo test 'two words' 'a=\"*\"'"
        );
    }
}
