//! Many prompts in a row, after which a board is as it was before.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::emulator::Emulator;
use super::story::{PROMPT, golden, quit, split};

/// How many.
const COUNT: usize = 1000;
/// The second is the beginning of the story that is known.
const PROMPTS: [&str; 4] = ["Once", "", "The llama was", "A bird \u{1F426}"];
/// Tokens of each text: one at least is new.
const STEPS: &str = "/steps 8";

/// Type them by turns. Each must be answered as it was the first time, the stack must not have grown since each had its
/// turn, and the plan must be what it was.
pub fn check(command: Command) -> Result<String> {
    let mut emulator = Emulator::start(command, false)?;
    emulator.wait_for(PROMPT)?;
    let mut answer = |line: &str| {
        emulator.line(line)?;
        emulator.wait_for(PROMPT)
    };
    answer("/temp 0")?;
    answer(STEPS)?;
    let plan = answer("/plan")?;
    let mut first = Vec::new();
    for at in 0..COUNT {
        let prompt = PROMPTS[at % PROMPTS.len()];
        let (story, statistics) = split(&answer(prompt)?)?;
        let stack = statistics.rsplit_once(", ").map(|(_, stack)| stack.to_owned());
        let stack = stack.filter(|stack| stack.ends_with(" bytes of stack"));
        let stack = stack.with_context(|| format!("nothing is said of the stack in {statistics}"))?;
        if at < PROMPTS.len() {
            ensure!(!prompt.is_empty() || golden()?.starts_with(&story), "the board tells {story:?}");
            first.push((story, stack));
            continue;
        }
        let before = &first[at % PROMPTS.len()].0;
        ensure!(
            story == *before,
            "prompt {at}, {prompt:?}, is answered by {story:?}, before it was {before:?}"
        );
        let before = &first[PROMPTS.len() - 1].1;
        ensure!(stack == *before, "after {at} prompts there are {stack} used, before it were {before}");
    }
    let after = answer("/plan")?;
    ensure!(after == plan, "the plan is {after}, before it was {plan}");
    let (stack, size) = quit(emulator)?;
    Ok(format!("{COUNT} prompts are answered as at first, {stack} of {size} bytes of stack used"))
}
