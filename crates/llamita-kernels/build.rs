//! Finds out what the stable compiler does not tell of a target.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(llamita_dsp)");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let (target, features) = (variable("TARGET"), variable("CARGO_CFG_TARGET_FEATURE"));
    // The DSP extension of Cortex-M4 and M7, which all have it, and of later ones, which say so.
    let dsp = target.starts_with("thumbv7em") || features.split(',').any(|feature| feature == "dsp");
    if variable("CARGO_CFG_TARGET_ARCH") == "arm" && dsp {
        println!("cargo::rustc-cfg=llamita_dsp");
    }
}
