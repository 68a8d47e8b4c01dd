//! Finds out what the stable compiler does not tell of a target.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(llamita_dsp, llamita_pie)");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    // The DSP extension of Cortex-M4 and M7, which all have it, and of later ones where rustc was told so: the stable
    // compiler does not pass it on.
    let flags = variable("CARGO_ENCODED_RUSTFLAGS");
    let cpus = ["=cortex-m33", "=cortex-m35p", "=cortex-m55", "=cortex-m85"];
    let dsp = variable("TARGET").starts_with("thumbv7em")
        || flags.contains("+dsp")
        || cpus.iter().any(|cpu| flags.contains(cpu));
    if variable("CARGO_CFG_TARGET_ARCH") == "arm" && dsp {
        println!("cargo::rustc-cfg=llamita_dsp");
    }
    // Of all Xtensa CPUs the ESP32-S3 alone has this vector unit, of which the compiler knows nothing.
    if variable("TARGET").starts_with("xtensa-esp32s3-") {
        println!("cargo::rustc-cfg=llamita_pie");
    }
}
