//! Hands the linker script to the linker, by a path that does not depend on where cargo was started.

use std::env;

fn main() {
    let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo names the folder");
    println!("cargo:rerun-if-changed=link.x");
    println!("cargo:rustc-link-arg=-T{folder}/link.x");
    // Segments are not pages here, and need not begin at multiples of one.
    println!("cargo:rustc-link-arg=--nmagic");
}
