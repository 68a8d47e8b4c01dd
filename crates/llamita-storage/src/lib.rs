//! Where weights live.
