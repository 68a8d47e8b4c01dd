//! The project's chores, run as `cargo xtask COMMAND`.

mod ci;
mod firmware;
mod golden;
mod random_model;

use std::process::ExitCode;

use clap::Parser;

/// The chores of llamita.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask")]
enum Chore {
    Ci(ci::Options),
    #[command(subcommand)]
    Firmware(firmware::Task),
    Golden(golden::Options),
    RandomModel(random_model::Options),
    Size(firmware::SizeOptions),
}

fn main() -> ExitCode {
    let outcome = match Chore::parse() {
        Chore::Ci(options) => ci::run(&options),
        Chore::Firmware(task) => firmware::run(&task),
        Chore::Golden(options) => golden::run(&options),
        Chore::RandomModel(options) => random_model::run(&options),
        Chore::Size(options) => firmware::size(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
