//! A plan as a picture: where the weights are, what the memories hold, what a token waits for.

use std::path::Path;

use llamita::Stage;
use llamita::weights::{Matrix, Tape, Tensor};
use llamita_storage::{MEMORIES, bytes_of};

use super::variant::{Outcome, Variant};
use crate::board::NamedBoard;
use crate::error::Result;
use crate::stack::{self, Bar, Stack};
use crate::units::{bytes, digits};

/// From this many layers on, each has one bar.
const MANY_LAYERS: usize = 13;

/// Draws a plan, beside what other variants of the model would take.
pub fn save(
    path: &Path,
    title: &str,
    board: &NamedBoard,
    home: &str,
    (variant, outcome): (&Variant, &Outcome),
    others: &[(&Variant, &Outcome)],
) -> Result<()> {
    let stacks = [weights(board, home, variant, outcome)?, memories(board, outcome), times(others)];
    stack::save(path, title, &stacks)
}

fn weights(board: &NamedBoard, home: &str, variant: &Variant, outcome: &Outcome) -> Result<Stack> {
    let tape = variant.tape()?;
    let config = &variant.config;
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for index in 1..Tape::len(config) {
        let name = match Tape::tensor(config, index) {
            Tensor::Matrix(Matrix::Classifier) => "classifier".to_owned(),
            Tensor::Matrix(
                Matrix::Wq(layer)
                | Matrix::Wk(layer)
                | Matrix::Wv(layer)
                | Matrix::Wo(layer)
                | Matrix::W1(layer)
                | Matrix::W3(layer)
                | Matrix::W2(layer),
            ) if config.n_layers >= MANY_LAYERS => format!("layer {layer}"),
            Tensor::Matrix(matrix) => {
                let (part, layer) = match matrix {
                    Matrix::W1(layer) | Matrix::W3(layer) | Matrix::W2(layer) => ("feed-forward", layer),
                    Matrix::Wq(layer) | Matrix::Wk(layer) | Matrix::Wv(layer) | Matrix::Wo(layer) => {
                        ("attention", layer)
                    }
                    Matrix::Classifier => continue,
                };
                format!("layer {layer}, {part}")
            }
            Tensor::Embedding | Tensor::Norm(_) => continue,
        };
        match groups.last_mut().filter(|(known, _)| *known == name) {
            Some((_, tensors)) => tensors.push(index),
            None => groups.push((name, vec![index])),
        }
    }
    let bar = |(label, tensors): (String, Vec<usize>)| {
        let mut parts = vec![0.0; MEMORIES + 1];
        for tensor in tensors {
            let (pinned, home) = bytes_of(&outcome.plan, tape, tensor);
            for (part, bytes) in parts.iter_mut().zip(pinned.into_iter().chain([home])) {
                *part += bytes as f64 / 1e3;
            }
        }
        let note = bytes((1e3 * parts.iter().sum::<f64>()) as u64);
        Bar { label, note, parts }
    };
    let mut kinds: Vec<_> = (0..MEMORIES)
        .map(|i| {
            board.memories.get(i).map_or_else(String::new, |memory| format!("pinned in {}", memory.name))
        })
        .collect();
    let verb = if outcome.plan.mapped.is_some() { "used in" } else { "streamed from" };
    kinds.push(format!("{verb} {home}"));
    let bars = groups.into_iter().map(bar).collect();
    Ok(Stack { title: "Where the weights are".to_owned(), unit: "kB".to_owned(), kinds, bars })
}

fn memories(board: &NamedBoard, outcome: &Outcome) -> Stack {
    let plan = &outcome.plan;
    let kinds =
        ["weights", "activations, keys and values", "buffers and norms", "header and tokenizer", stack::FREE];
    let bars = board.memories.iter().enumerate().map(|(i, memory)| {
        let at = |place: usize, bytes: u64| if place == i { bytes } else { 0 };
        let mut parts = vec![
            plan.pinned[i],
            at(plan.state_in, plan.state) + at(plan.cache_in, plan.cache),
            at(plan.buffers_in, plan.buffers_len() + plan.norms),
            at(plan.other_in, plan.other),
        ];
        if plan.mapped == Some(i) {
            parts[0] = plan.streamed;
        }
        parts.push(memory.memory.size.saturating_sub(parts.iter().sum()));
        let parts = parts.into_iter().map(|bytes| bytes as f64 / 1e3).collect();
        Bar { label: memory.name.clone(), note: bytes(memory.memory.size), parts }
    });
    let (title, unit) = ("What the memories hold".to_owned(), "kB".to_owned());
    Stack { title, unit, kinds: kinds.map(str::to_owned).to_vec(), bars: bars.collect() }
}

fn times(variants: &[(&Variant, &Outcome)]) -> Stack {
    let bar = |(variant, outcome): &(&Variant, &Outcome)| Bar {
        label: variant.name.clone(),
        note: format!("{} tok/s", digits(1.0 / outcome.token.total)),
        parts: outcome.token.parts.iter().map(|seconds| 1e3 * seconds).collect(),
    };
    Stack {
        title: "What a token waits for, in this and other formats".to_owned(),
        unit: "milliseconds".to_owned(),
        kinds: Stage::ALL.iter().map(|stage| stage.name().to_owned()).collect(),
        bars: variants.iter().map(bar).collect(),
    }
}
