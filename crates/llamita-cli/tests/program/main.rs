//! The llamita program from outside: what it prints, what it refuses, and how it ends.

mod bad_input;
mod builtin;
mod commands;
mod compare;
mod convert;
mod files;
mod places;
mod program;
mod pruning;
mod stories;
