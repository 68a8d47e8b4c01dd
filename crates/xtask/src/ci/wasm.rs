//! The WebAssembly kernels, run in node.

use anyhow::Result;

use super::report::Outcome;
use super::target::{Library, Target};
use super::tools::{is_installed, run, rustflags};

/// WebAssembly without an operating system.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// 128-bit SIMD, which is decided when the module is compiled.
pub const SIMD128: &str = "-C target-feature=+simd128";

/// Loads the module and calls it; relative to the root of the workspace.
const SCRIPT: &str = "crates/xtask/src/ci/conformance.mjs";

/// The suite that every kernel passes, compiled to a module that node loads.
pub fn kernels() -> Result<Outcome> {
    if !is_installed("node") {
        return Ok(Outcome::Missing("install Node.js".to_owned()));
    }
    let Some(target) = Target::find(TARGET, Library::Core)? else {
        return Ok(Outcome::Missing(format!("rustup target add {TARGET}")));
    };
    let mut command = target.cargo("run");
    command.args(["--package", "llamita-kernels", "--no-default-features", "--example", "conformance"]);
    command.env("RUSTFLAGS", rustflags(SIMD128));
    target.set(&mut command, "RUNNER", format!("node {SCRIPT}"));
    run(&mut command)?;
    Ok(Outcome::Passed)
}
