//! The NEON kernels, run by an emulator of 64-bit Arm Linux.

use anyhow::Result;

use super::report::Outcome;
use super::target::{Library, Target};
use super::tools::{is_installed, run, rustflags};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATORS: [&str; 2] = ["qemu-aarch64", "qemu-aarch64-static"];

/// The tests of the kernels' crate, all of them.
pub fn kernels() -> Result<Outcome> {
    if cfg!(target_arch = "aarch64") {
        return Ok(Outcome::Skipped("this machine has NEON: the step tests ran it".to_owned()));
    }
    let Some(emulator) = EMULATORS.into_iter().find(|emulator| is_installed(emulator)) else {
        return Ok(Outcome::Missing("install qemu-aarch64 (Debian: qemu-user)".to_owned()));
    };
    if !is_installed(LINKER) {
        let remedy = format!("install {LINKER} (Debian: gcc-aarch64-linux-gnu and libc6-dev-arm64-cross)");
        return Ok(Outcome::Missing(remedy));
    }
    let Some(target) = Target::find(TARGET, Library::Std)? else {
        return Ok(Outcome::Missing(format!("rustup target add {TARGET}")));
    };
    let mut command = target.cargo("test");
    // Tests in documentation are left to the host: rustdoc would have to be of the compiler's version.
    command.args(["--package", "llamita-kernels", "--lib", "--tests"]);
    target.set(&mut command, "LINKER", LINKER);
    target.set(&mut command, "RUNNER", emulator);
    // A static program runs without telling the emulator where Arm's shared libraries are.
    command.env("RUSTFLAGS", rustflags("-C target-feature=+crt-static"));
    run(&mut command)?;
    Ok(Outcome::Passed)
}
