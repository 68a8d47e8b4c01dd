//! Implementations for vector units. What they share is written once, in `generic/`; a file per unit
//! says how it does each operation on a vector.

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
#[macro_use]
mod generic;

#[cfg(target_arch = "x86_64")]
#[path = "x86_64/avx2.rs"]
pub(crate) mod avx2;
#[cfg(llamita_dsp)]
#[path = "arm/dsp.rs"]
pub(crate) mod dsp;
#[cfg(target_arch = "aarch64")]
#[path = "aarch64/neon.rs"]
pub(crate) mod neon;
#[cfg(llamita_pie)]
#[path = "xtensa/pie.rs"]
pub(crate) mod pie;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[path = "wasm32/simd128.rs"]
pub(crate) mod simd128;
