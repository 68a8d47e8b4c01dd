//! How many instructions a token takes on emulated boards, by component, beside plain arithmetic on floats.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use super::board::{Board, Medium, Place, Room, Tools};
use super::emulator::Emulator;
use super::story::{self, number_after};
use crate::ci::tools::{cargo, output, root};

/// Tell the instructions of a token on every board, by component, for eight bits and for floats.
///
/// With floats, weights, keys and values have single precision, and the kernels are those that define the arithmetic: what
/// llama2.c computes, compiled for the same CPU. The board is given more memory for that than it has. Takes some minutes.
#[derive(clap::Args)]
pub struct Options {
    /// Tell it as JSON: a list of measurements.
    #[arg(long)]
    json: bool,
}

/// Positions that are measured, and prompts whose stories go as far.
const PLACES: [(usize, &str); 2] = [(10, ""), (200, "Lily and Tom found a tiny llama")];

/// Components, and what the board calls them.
const COMPONENTS: [(&str, &str); 6] = [
    ("attention products", "projections"),
    ("feed-forward", "feed_forward"),
    ("classifier", "classifier"),
    ("attention", "attention"),
    ("norm and rope", "norm_and_rope"),
    ("sampling", "sampling"),
];

/// Instructions of a token.
struct Measured {
    board: &'static str,
    arithmetic: &'static str,
    position: usize,
    components: [u64; COMPONENTS.len()],
}

impl Measured {
    fn total(&self) -> u64 {
        self.components.iter().sum()
    }
}

/// Measure all.
pub fn bench(boards: &[&'static Board], options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let floats = in_floats(folder.path())?;
    let bar = ProgressBar::new(2 * PLACES.len() as u64 * boards.len() as u64)
        .with_style(ProgressStyle::with_template("{bar:20} {pos} of {len}, {elapsed} {msg}")?);
    let mut measured = Vec::new();
    for &board in boards {
        let tools = super::found(Tools::find(board)?)?;
        let variants: [(_, &Path, _); 2] =
            [("q8", story::MODEL.as_ref(), Room::OfTheBoard), ("f32", &floats, Room::Plenty)];
        for (arithmetic, model, room) in variants {
            let program = tools.build(room)?;
            for (position, prompt) in PLACES {
                bar.set_message(format!("{}, {arithmetic}, position {position}", board.name));
                let command = tools.emulate(&program, &Medium::with(Place::Flash, model)?, folder.path())?;
                let components = last_token(command, board, arithmetic, position, prompt)?;
                measured.push(Measured { board: board.name, arithmetic, position, components });
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    if options.json {
        println!("{}", json(&measured));
    } else {
        print!("{}", table(&measured));
    }
    Ok(())
}

/// The model in single precision.
fn in_floats(folder: &Path) -> Result<PathBuf> {
    let floats = folder.join("nano-f32.gguf");
    let mut command = cargo("run");
    command.args(["--quiet", "--package", "llamita-cli", "--", "convert", "--quant", "f32"]);
    output(command.arg(root().join(story::MODEL)).arg(&floats))?;
    ensure!(fs::metadata(&floats)?.len() > 0, "a model in single precision");
    Ok(floats)
}

/// Instructions of the pass at a position: what a story takes that ends there, less one that ends before it.
fn last_token(
    command: Command,
    board: &Board,
    arithmetic: &str,
    position: usize,
    prompt: &str,
) -> Result<[u64; COMPONENTS.len()]> {
    let mut emulator = Emulator::start(command, false)?;
    emulator.wait_for(story::PROMPT)?;
    emulator.line("/json on")?;
    emulator.wait_for_event("ready")?;
    let mut ask = |line: &str| {
        emulator.line(line)?;
        emulator.wait_for_event("ready")
    };
    // Long enough for the last position, and no longer, for the sake of the floats.
    for line in [&format!("/kv {arithmetic}"), "/context 208", "/temp 0", "/steps 2", ""] {
        let heard = ask(line)?;
        ensure!(!heard.contains("\"event\":\"error\""), "the board refuses {line:?}:\n{heard}");
    }
    let mut story = |steps: usize| {
        ask(&format!("/steps {steps}"))?;
        let heard = ask(prompt)?;
        ensure!(heard.contains("\"stop\":\"length\""), "the story ends before {steps} tokens:\n{heard}");
        let mut components = [0; COMPONENTS.len()];
        for (ticks, (_, name)) in components.iter_mut().zip(COMPONENTS) {
            let name = format!("\"{name}_ticks\":");
            let number = number_after(&heard, &name);
            *ticks = number.with_context(|| format!("nothing is said of {name}\n{heard}"))?;
        }
        anyhow::Ok(components)
    };
    let (before, with) = (story(position)?, story(position + 1)?);
    Ok(core::array::from_fn(|i| with[i].saturating_sub(before[i]) * board.instructions_per_tick))
}

/// For people, and for the README.
fn table(measured: &[Measured]) -> String {
    let names = COMPONENTS.map(|(name, _)| name).join(" | ");
    let mut table = format!("| board | arithmetic | position | {names} | all | f32 ÷ q8 |\n|---|---|---:|");
    table.push_str(&"---:|".repeat(COMPONENTS.len() + 2));
    for row in measured {
        let components: Vec<_> = row.components.iter().map(|count| thousands(*count)).collect();
        let of_q8 = |other: &&Measured| {
            (other.board, other.arithmetic, other.position) == (row.board, "q8", row.position)
        };
        let ratio = measured.iter().find(of_q8).map(|q8| row.total() as f64 / q8.total() as f64);
        let ratio = ratio.filter(|_| row.arithmetic != "q8").map(|ratio| format!("{ratio:.1}"));
        table.push_str(&format!(
            "\n| {} | {} | {} | {} | {} | {} |",
            row.board,
            row.arithmetic,
            row.position,
            components.join(" | "),
            thousands(row.total()),
            ratio.unwrap_or_default()
        ));
    }
    table.push('\n');
    table
}

/// Thousands of instructions.
fn thousands(count: u64) -> String {
    let thousands = (count + 500) / 1000;
    match thousands {
        0..1000 => format!("{thousands}"),
        _ => format!("{},{:03}", thousands / 1000, thousands % 1000),
    }
}

fn json(measured: &[Measured]) -> String {
    let rows: Vec<_> = measured
        .iter()
        .map(|row| {
            let components: Vec<_> =
                COMPONENTS.iter().zip(row.components).map(|((name, _), count)| format!("\"{name}\":{count}")).collect();
            format!(
                "{{\"board\":\"{}\",\"arithmetic\":\"{}\",\"position\":{},\"instructions\":{},\"components\":{{{}}}}}",
                row.board,
                row.arithmetic,
                row.position,
                row.total(),
                components.join(",")
            )
        })
        .collect();
    format!("[{}]", rows.join(","))
}
