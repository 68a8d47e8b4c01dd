//! Files on cards: found, in pieces or not, and read as they were written, whatever the card holds.

mod ahead;
mod card;
#[path = "../placed/common.rs"]
#[allow(dead_code, reason = "shared with the tests of places")]
mod common;
mod damage;
mod extents;
mod model;
mod names;
