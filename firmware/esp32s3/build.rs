//! Hands the linker its scripts, by paths that do not depend on where cargo was started.

use std::env;

fn main() {
    let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo names the folder");
    println!("cargo:rerun-if-changed=link.x");
    println!("cargo:rerun-if-changed=rwtext_hook.x");
    println!("cargo:rustc-link-search={folder}");
    println!("cargo:rustc-link-arg=-Wl,-T{folder}/link.x");
}
