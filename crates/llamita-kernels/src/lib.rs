//! The arithmetic of llamita.
#![cfg_attr(not(feature = "std"), no_std)]

/// Consecutive rows of a matrix of weights, row-major, as they are stored.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// Single precision: (rows, columns).
    F32(&'a [f32]),
    /// Half precision, as bits: (rows, columns).
    F16(&'a [u16]),
    /// The upper halves of `f32`s, as bits: (rows, columns).
    Bf16(&'a [u16]),
}
