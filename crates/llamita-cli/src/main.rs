//! The llamita program.
fn main() {}
