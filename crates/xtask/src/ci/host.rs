//! The checks that need nothing but Rust's own tools.

use anyhow::Result;

use super::bare::BARE_CRATES;
use super::report::Outcome;
use super::tools::{cargo, root, run, rustflags};

/// Every file is as rustfmt would write it.
pub fn format() -> Result<Outcome> {
    run(cargo("fmt").args(["--all", "--check"]))?;
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

/// The fuzz targets, which have a workspace of their own, still compile.
pub fn fuzz() -> Result<Outcome> {
    if !root().join("fuzz/Cargo.toml").exists() {
        return Ok(Outcome::Skipped("there are no fuzz targets".to_owned()));
    }
    // The flag is what `cargo fuzz` compiles them with.
    run(cargo("check")
        .args(["--manifest-path", "fuzz/Cargo.toml"])
        .env("RUSTFLAGS", rustflags("--cfg fuzzing")))?;
    Ok(Outcome::Passed)
}
