//! The llamita program: small Llama-family language models on the command line.

mod board;
mod builtin;
mod calibration;
mod clock;
mod commands;
mod console;
mod divergence;
mod error;
mod espflash;
mod flash_image;
mod load;
mod options;
mod output;
mod places;
mod plot;
mod pruning;
mod serial;
mod stack;
mod stories;
mod threads;
mod transcript;
mod units;
mod vocabulary;

use std::process::ExitCode;

use clap::Parser;

use commands::{bench, boards, compare, convert, eval, flash, inspect, models, monitor, plan, run, tokenize};

/// Run Llama-family language models that are small enough for small machines
///
/// Models are llama2.c checkpoints (.bin, versions 0, 1 and 2) and GGUF files: those that `llamita convert` writes,
/// and F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K and Q6_K. Without one, the program's own tells the story.
#[derive(Parser)]
#[command(name = "llamita", version)]
enum Command {
    Run(run::Options),
    Convert(convert::Options),
    Inspect(inspect::Options),
    Eval(eval::Options),
    Compare(compare::Options),
    Tokenize(tokenize::Options),
    Bench(bench::Options),
    Models(models::Options),
    Boards(boards::Options),
    Plan(plan::Options),
    Flash(flash::Options),
    Monitor(monitor::Options),
}

fn main() -> ExitCode {
    let outcome = options::parse().and_then(|command| match command {
        Command::Run(options) => run::run(&options),
        Command::Convert(options) => convert::run(&options),
        Command::Inspect(options) => inspect::run(&options),
        Command::Eval(options) => eval::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Tokenize(options) => tokenize::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Models(options) => models::run(&options),
        Command::Boards(options) => boards::run(&options),
        Command::Plan(options) => plan::run(&options),
        Command::Flash(options) => flash::run(&options),
        Command::Monitor(options) => monitor::run(&options),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
