//! The WebAssembly kernels, run in node.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::report::Outcome;
use super::target::{Library, Target};
use super::tools::{cargo, find, output, run, rustflags};

/// WebAssembly without an operating system.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// 128-bit SIMD, which is decided when the module is compiled.
pub const SIMD128: &str = "-C target-feature=+simd128";

const SCRIPT: &str = include_str!("conformance.mjs");

/// The suite that every kernel passes, compiled to a module that node loads.
pub fn kernels() -> Result<Outcome> {
    let Some(node) = find("node") else {
        return Ok(Outcome::Missing("install Node.js".to_owned()));
    };
    let Some(target) = Target::find(TARGET, Library::Core)? else {
        return Ok(Outcome::Missing(format!("rustup target add {TARGET}")));
    };
    let mut command = target.cargo("rustc");
    command.args(["--package", "llamita-kernels", "--no-default-features"]);
    command.args(["--example", "conformance", "--crate-type", "cdylib"]);
    command.env("RUSTFLAGS", rustflags(SIMD128));
    if let Some(linker) = target.borrowed_linker()? {
        command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    }
    run(&mut command)?;

    let module = target_directory()?.join(TARGET).join("debug/examples/conformance.wasm");
    let module = fs::canonicalize(&module).with_context(|| format!("cannot find {}", module.display()))?;
    run(Command::new(node).args(["--input-type=module", "--eval", SCRIPT]).arg(module))?;
    Ok(Outcome::Passed)
}

/// Where cargo puts what it builds, which users may have moved.
fn target_directory() -> Result<PathBuf> {
    let metadata = output(cargo("metadata").args(["--no-deps", "--format-version", "1"]))?;
    let value = metadata.split_once("\"target_directory\":\"").and_then(|(_, rest)| rest.split_once('"'));
    let (path, _) = value.context("cargo metadata names no target_directory")?;
    // The path is a string of JSON: on Windows its backslashes are doubled.
    Ok(path.replace("\\\\", "\\").into())
}
