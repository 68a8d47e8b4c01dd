//! llamita runs Llama-family language models on machines that seem too small for them.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("model files are little-endian and used in place: big-endian targets are not supported");

pub mod config;
pub mod format;
pub mod tokenizer;
pub mod weights;
