//! Hands the linker script to the linker, by a path that does not depend on where cargo was started.

use std::env;

fn main() {
    let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo names the folder");
    // For measurements with more memory than the board has, see `cargo xtask firmware bench`.
    let script = env::var("LLAMITA_LINKER_SCRIPT").unwrap_or_else(|_| format!("{folder}/link.x"));
    println!("cargo:rerun-if-env-changed=LLAMITA_LINKER_SCRIPT");
    println!("cargo:rerun-if-changed={script}");
    println!("cargo:rustc-link-arg=-T{script}");
    // Segments are not pages here, and need not begin at multiples of one.
    println!("cargo:rustc-link-arg=--nmagic");
}
