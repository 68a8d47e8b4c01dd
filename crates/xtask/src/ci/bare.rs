//! Each `no_std` crate, built alone for machines without a standard library.

use anyhow::Result;

use super::report::Outcome;
use super::target::{Library, Target};
use super::tools::{run, rustflags};

/// The crates that know how to do without the standard library, and their features there.
pub const BARE_CRATES: [(&str, &str); 4] =
    [("llamita-kernels", ""), ("llamita-conformance", ""), ("llamita", ""), ("llamita-storage", "sd")];

/// Build the crates for a target, with flags for rustc.
pub fn build(triple: &'static str, flags: &str) -> Result<Outcome> {
    let Some(target) = Target::find(triple, Library::Core)? else {
        return Ok(Outcome::Missing(format!("rustup target add {triple}")));
    };
    for (name, features) in BARE_CRATES {
        // One by one: features of crates that are built together are merged, and one that asks for the
        // standard library by mistake would hide behind another that may.
        let mut command = target.cargo("rustc");
        command.args(["--package", name, "--lib", "--no-default-features", "--features", features]);
        if !flags.is_empty() {
            command.env("RUSTFLAGS", rustflags(flags));
        }
        // Clippy sees only what the host compiles.
        run(command.args(["--", "-D", "warnings"]))?;
    }
    Ok(Outcome::Passed)
}
