//! plan
use crate::error::Result;
/// x
#[derive(clap::Args)]
pub struct Options {}
/// x
pub fn run(_: &Options) -> Result<()> {
    Ok(())
}
