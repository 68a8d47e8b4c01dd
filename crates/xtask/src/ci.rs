//! `cargo xtask ci`: every check of the project, in the order in which failures are cheapest to find.

mod bare;
mod host;
mod neon;
pub mod report;
mod stories;
pub mod target;
pub mod tools;
mod wasm;

use std::env;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;

use crate::firmware;
use report::{Outcome, Report};

/// Run every check of the project; stop at the first that fails.
///
/// Checks whose tools are not installed are skipped and say what to install. With CI=true in the
/// environment a missing tool is a failure.
#[derive(clap::Args)]
pub struct Options {
    /// Run only these steps, in their usual order [default: all of them].
    #[arg(value_name = "STEP", value_parser = step_names())]
    steps: Vec<String>,

    /// Let a missing tool fail its step, as CI=true in the environment does.
    #[arg(long)]
    strict: bool,
}

/// One check: the name it is asked for by, and what it does.
struct Step {
    name: &'static str,
    check: fn() -> Result<Outcome>,
}

const PLAN: &[Step] = &[
    Step { name: "format", check: host::format },
    Step { name: "clippy", check: host::clippy },
    Step { name: "docs", check: host::docs },
    Step { name: "tests", check: host::tests },
    Step { name: "riscv32", check: || bare::build("riscv32imac-unknown-none-elf", "") },
    Step { name: "thumbv7em", check: || bare::build("thumbv7em-none-eabihf", "") },
    Step { name: "wasm32", check: || bare::build(wasm::TARGET, "") },
    Step { name: "wasm32-simd128", check: || bare::build(wasm::TARGET, wasm::SIMD128) },
    Step { name: "wasm-kernels", check: wasm::kernels },
    Step { name: "neon-kernels", check: neon::kernels },
    Step { name: "stories", check: stories::native },
    Step { name: "wasm-stories", check: wasm::stories },
    Step { name: "neon-stories", check: neon::stories },
    Step { name: "firmware-tests", check: host::firmware },
    Step { name: "firmware", check: firmware::check },
    Step { name: "esp32s3", check: firmware::esp32s3::check },
    Step { name: "fuzz", check: host::fuzz },
];

fn step_names() -> PossibleValuesParser {
    PossibleValuesParser::new(PLAN.iter().map(|step| step.name))
}

/// Run the steps that were asked for and print a table of how they went.
pub fn run(options: &Options) -> Result<()> {
    let strict = options.strict || env::var_os("CI").is_some_and(|value| value == "true");
    let asked_for =
        |step: &&Step| options.steps.is_empty() || options.steps.iter().any(|name| name == step.name);

    let mut report = Report::default();
    let mut failure = None;
    for step in PLAN.iter().filter(asked_for) {
        if failure.is_some() {
            report.not_run(step.name);
            continue;
        }
        println!("== {}", step.name);
        let start = Instant::now();
        let outcome = match (step.check)() {
            Ok(Outcome::Missing(remedy)) if strict => Outcome::Failed(format!("a tool is missing: {remedy}")),
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        if let Outcome::Failed(reason) = &outcome {
            failure = Some(format!("step {} failed: {reason}", step.name));
        }
        report.ran(step.name, outcome, start.elapsed());
    }

    println!("\n{report}");
    match failure {
        Some(failure) => bail!(failure),
        None => Ok(()),
    }
}
