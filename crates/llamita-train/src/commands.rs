//! One module for each command.

pub mod corpus;
pub mod train;
