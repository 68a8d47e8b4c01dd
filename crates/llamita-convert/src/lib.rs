//! Models from one form to another: llama2.c checkpoints, GGUF and Hugging Face folders in; device GGUF,
//! ordinary GGUF, llama2.c version 0 and Hugging Face folders out.
//!
//! A [`Source`] is read a few rows at a time as `f32`, so that no model is ever in memory as a whole, and no
//! quantized tensor as a whole of `f32`. Writers ask for the rows in the order in which they write them.

#![forbid(unsafe_code)]

mod blocks;
pub mod calibrate;
mod conversion;
mod error;
pub mod gguf;
pub mod hugging_face;
pub mod llama2c;
pub mod plan;
pub mod prune;
mod quantize;
pub mod rope;
pub mod source;
pub mod stories;
pub mod tune;
pub mod vocabulary;

pub use calibrate::{Calibrated, Calibration};
pub use conversion::Conversion;
pub use error::{Error, Result};
pub use gguf::GgufFile;
pub use plan::{Group, Plan, Precision};
pub use prune::{Pruned, Selection, Usage};
pub use quantize::{Quantizer, Rounding, pack, quantize_rows, unpack};
pub use source::{Integers, Source};
pub use vocabulary::{Vocabulary, VocabularyModel};
