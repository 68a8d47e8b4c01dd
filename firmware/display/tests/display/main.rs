//! The screen on panels in memory: pictures, text against a naive layout, costs, and failures.

mod cost;
mod failures;
mod golden;
mod panel;
mod pictures;
mod text;
