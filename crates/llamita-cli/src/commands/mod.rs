//! The commands, each in a file of its own: its options, and what it does with them.

pub mod bench;
pub mod boards;
pub mod compare;
pub mod convert;
pub mod eval;
pub mod flash;
pub mod inspect;
pub mod models;
pub mod monitor;
pub mod plan;
pub mod run;
pub mod tokenize;
