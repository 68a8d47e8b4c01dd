//! The NEON kernels, and the engine on them, run by an emulator of 64-bit Arm Linux.

use std::process::Command;

use anyhow::Result;

use super::report::Outcome;
use super::stories::{self, Stories};
use super::target::{Library, Target};
use super::tools::{is_installed, run, rustflags};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATORS: [&str; 2] = ["qemu-aarch64", "qemu-aarch64-static"];

/// The tests of the kernels, all of them.
pub fn kernels() -> Result<Outcome> {
    let machine = match Machine::find()? {
        Ok(machine) => machine,
        Err(outcome) => return Ok(outcome),
    };
    let mut command = machine.cargo("test");
    // Tests in documentation are left to the host: rustdoc would have to be of the compiler's version.
    command.args(["--package", "llamita-kernels", "--package", "llamita-conformance", "--lib", "--tests"]);
    run(&mut command)?;
    Ok(Outcome::Passed)
}

/// The stories of quantized models.
pub fn stories() -> Result<Outcome> {
    let machine = match Machine::find()? {
        Ok(machine) => machine,
        Err(outcome) => return Ok(outcome),
    };
    let stories = Stories::prepare()?;
    stories.compare("64-bit Arm", Some("neon"), || {
        let mut command = machine.cargo("run");
        // Every instruction is emulated: what the compiler saves is time many times over.
        command.args(["--config", "profile.dev.opt-level=3"]);
        command.args(stories::EXAMPLE).arg("--");
        command
    })?;
    Ok(Outcome::Passed)
}

/// What compiles for Arm, and runs it.
struct Machine {
    target: Target,
    emulator: &'static str,
}

impl Machine {
    /// Look for the tools, or say why the step does not run.
    fn find() -> Result<Result<Self, Outcome>> {
        if cfg!(target_arch = "aarch64") {
            let reason = "this machine has NEON: the steps of the host ran it";
            return Ok(Err(Outcome::Skipped(reason.to_owned())));
        }
        let Some(emulator) = EMULATORS.into_iter().find(|emulator| is_installed(emulator)) else {
            return Ok(Err(Outcome::Missing("install qemu-aarch64 (Debian: qemu-user)".to_owned())));
        };
        if !is_installed(LINKER) {
            let remedy =
                format!("install {LINKER} (Debian: gcc-aarch64-linux-gnu and libc6-dev-arm64-cross)");
            return Ok(Err(Outcome::Missing(remedy)));
        }
        let target = Target::find(TARGET, Library::Std)?;
        let missing = || Outcome::Missing(format!("rustup target add {TARGET}"));
        Ok(target.map(|target| Self { target, emulator }).ok_or_else(missing))
    }

    /// A call of cargo that compiles for Arm and runs the result.
    fn cargo(&self, subcommand: &str) -> Command {
        let mut command = self.target.cargo(subcommand);
        self.target.set(&mut command, "LINKER", LINKER);
        self.target.set(&mut command, "RUNNER", self.emulator);
        // A static program runs without telling the emulator where Arm's shared libraries are.
        command.env("RUSTFLAGS", rustflags("-C target-feature=+crt-static"));
        command
    }
}
