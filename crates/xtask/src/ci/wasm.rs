//! The WebAssembly kernels, and the engine on them, run in node.

use std::process::Command;

use anyhow::Result;

use super::report::Outcome;
use super::stories::{self, Stories};
use super::target::{Library, Target};
use super::tools::{is_installed, run, rustflags};

/// WebAssembly without an operating system.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// 128-bit SIMD, which is decided when the module is compiled.
pub const SIMD128: &str = "-C target-feature=+simd128";

/// Load a module and call it; relative to the root of the workspace.
const CONFORMANCE: &str = "crates/xtask/src/ci/conformance.mjs";
const STORY: &str = "crates/xtask/src/ci/story.mjs";

/// Model and state lie on the stack, where memory is safe without an allocator; 1 MiB is usual.
const STACK: &str = "-C link-arg=-zstack-size=4194304";

/// The suite that every kernel passes, compiled to a module that node loads.
pub fn kernels() -> Result<Outcome> {
    let target = match target()? {
        Ok(target) => target,
        Err(missing) => return Ok(missing),
    };
    let example = ["--package", "llamita-conformance", "--example", "conformance"];
    run(&mut module(&target, &example, SIMD128, CONFORMANCE))?;
    Ok(Outcome::Passed)
}

/// The stories of quantized models, with SIMD and without it.
pub fn stories() -> Result<Outcome> {
    let target = match target()? {
        Ok(target) => target,
        Err(missing) => return Ok(missing),
    };
    let stories = Stories::prepare()?;
    for (flags, unit) in [("", "words"), (SIMD128, "simd128")] {
        let flags = format!("{flags} {STACK}");
        stories.compare("wasm", Some(unit), || module(&target, &stories::EXAMPLE, &flags, STORY))?;
    }
    Ok(Outcome::Passed)
}

/// WebAssembly and what runs it, or what is missing.
fn target() -> Result<Result<Target, Outcome>> {
    if !is_installed("node") {
        return Ok(Err(Outcome::Missing("install Node.js".to_owned())));
    }
    let target = Target::find(TARGET, Library::Core)?;
    Ok(target.ok_or_else(|| Outcome::Missing(format!("rustup target add {TARGET}"))))
}

/// A call of an example that is compiled to a module, which a script loads.
fn module(target: &Target, example: &[&str], flags: &str, script: &str) -> Command {
    let mut command = target.cargo("run");
    command.args(["--no-default-features"]).args(example).arg("--");
    command.env("RUSTFLAGS", rustflags(flags));
    target.set(&mut command, "RUNNER", format!("node {script}"));
    command
}
