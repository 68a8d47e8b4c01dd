//! The checks that need nothing but Rust's own tools.

use anyhow::Result;

use super::bare::BARE_CRATES;
use super::report::Outcome;
use super::tools::{cargo, root, run, rustflags};

/// The fuzz targets have a workspace of their own, where their flags reach nothing else.
const FUZZ: &str = "fuzz/Cargo.toml";

/// Every file is as rustfmt would write it.
pub fn format() -> Result<Outcome> {
    run(cargo("fmt").args(["--all", "--check"]))?;
    if root().join(FUZZ).exists() {
        run(cargo("fmt").args(["--check", "--manifest-path", FUZZ]))?;
    }
    Ok(Outcome::Passed)
}

/// No warnings, with the standard library and without it.
pub fn clippy() -> Result<Outcome> {
    run(cargo("clippy").args(["--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    for name in BARE_CRATES {
        // One by one: features of crates that are built together are merged.
        run(cargo("clippy").args(["--package", name, "--no-default-features", "--", "-D", "warnings"]))?;
    }
    Ok(Outcome::Passed)
}

/// Every link in the documentation leads somewhere.
pub fn docs() -> Result<Outcome> {
    run(cargo("doc").args(["--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(Outcome::Passed)
}

/// The tests of every crate, as anyone runs them.
pub fn tests() -> Result<Outcome> {
    run(cargo("test").arg("--workspace"))?;
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
