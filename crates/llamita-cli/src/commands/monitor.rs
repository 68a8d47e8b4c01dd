//! `llamita monitor`: the console of a board.

use std::io::{self, IsTerminal};
use std::time::Duration;

use crate::console;
use crate::error::Result;
use crate::serial::{Port, PortArgument};

/// Open the console of a board that runs llamita
///
/// At a terminal, what is typed goes to the board: a text to continue, or /help. Ctrl-C stops a story, Ctrl-] leaves the
/// console. In a pipe, each line of standard input goes to the board once the one before has been answered, and its text
/// comes to standard output.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    port: PortArgument,

    #[command(flatten)]
    patience: PatienceArgument,
}

/// How long to wait for a board.
#[derive(clap::Args)]
pub struct PatienceArgument {
    /// In a pipe: for how many seconds the board may say nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

/// Open the console.
pub fn run(options: &Options) -> Result<()> {
    let name = options.port.find()?;
    options.patience.console(options.port.open(&name)?, &name)
}

impl PatienceArgument {
    /// The console at this port.
    pub fn console(&self, port: Port, name: &str) -> Result<()> {
        if io::stdin().is_terminal() {
            console::interact(port, name)
        } else {
            console::pipe(port, name, Duration::from_secs(self.timeout))
        }
    }
}
