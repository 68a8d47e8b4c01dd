//! The llamita program from outside: what it prints, what it refuses, and how it ends.

mod bad_input;
mod builtin;
mod commands;
mod compare;
mod convert;
mod files;
mod flash;
#[cfg(target_os = "linux")]
mod monitor;
mod places;
mod program;
mod pruning;
#[cfg(target_os = "linux")]
mod serial_board;
mod stories;
