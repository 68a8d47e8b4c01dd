//! Weights in places: whatever is pinned and whatever is streamed, the numbers are those of resident weights.

mod common;
mod faults;
mod pace;
mod places;
