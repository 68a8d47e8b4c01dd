//! What was measured, as tables or JSON.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::compare::{Comparison, Work};

/// The read bandwidth over a buffer.
#[derive(Serialize)]
pub struct Bandwidth {
    /// Size of the buffer in 10^6 bytes.
    pub megabytes: usize,
    /// The fastest way to read it.
    pub way: String,
    /// Bytes per second.
    pub rate: Spread,
}

/// The middle and the limits of repeated measurements.
#[derive(Clone, Copy, Serialize)]
pub struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

/// Of one model.
#[derive(Serialize)]
struct Side {
    model: String,
    /// Of the weights.
    bytes_per_token: usize,
    /// Bytes per second, over as many bytes.
    bandwidth: Spread,
    /// Tokens per second.
    decode: Spread,
    /// Tokens per second.
    prefill: Spread,
    /// Of the bandwidth that decoding uses for weights, by the medians.
    roofline_share: f64,
}

#[derive(Serialize)]
struct Report {
    rounds: usize,
    decode_tokens: usize,
    prefill_tokens: usize,
    llamita: Side,
    candle: Side,
    /// llamita to candle, round by round.
    decode_ratio: Spread,
    /// llamita to candle, round by round.
    prefill_ratio: Spread,
    agreement: Agreement,
}

/// Of the two models' logits.
#[derive(Serialize)]
struct Agreement {
    tokens: usize,
    same: usize,
    wrong: usize,
    difference: f64,
}

impl Spread {
    /// Of at least one number.
    pub fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let middle = numbers.len() / 2;
        let median = if numbers.len().is_multiple_of(2) {
            (numbers[middle - 1] + numbers[middle]) / 2.0
        } else {
            numbers[middle]
        };
        Self { median, min: numbers[0], max: numbers[numbers.len() - 1] }
    }

    fn ratios([ours, peer]: &[Vec<f64>; 2]) -> Self {
        Self::of(ours.iter().zip(peer).map(|(ours, peer)| ours / peer).collect())
    }

    /// Median, least and greatest, divided by a unit.
    fn text(&self, unit: f64, decimals: usize) -> String {
        let number = |number: f64| format!("{:.decimals$}", number / unit);
        format!("{:>8} ({} to {})", number(self.median), number(self.min), number(self.max))
    }
}

/// Prints the bandwidths.
pub fn bandwidth(table: &[Bandwidth], json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(table)?);
        return Ok(());
    }
    println!("one thread reads, in GB/s: median (least to greatest)");
    for Bandwidth { megabytes, way, rate } in table {
        println!("{megabytes:>6} MB  {}  {way}", rate.text(1e9, 1));
    }
    Ok(())
}

/// Prints a comparison.
pub fn comparison(
    found: &Comparison,
    model: &Path,
    peer_model: &Path,
    work: &Work,
    json: bool,
) -> Result<()> {
    let side = |i: usize, model: &Path| {
        let (bandwidth, decode) =
            (Spread::of(found.bandwidth[i].clone()), Spread::of(found.decode[i].clone()));
        let bytes_per_token = found.bytes_per_token[i];
        Side {
            model: model.display().to_string(),
            bytes_per_token,
            bandwidth,
            decode,
            prefill: Spread::of(found.prefill[i].clone()),
            roofline_share: bytes_per_token as f64 * decode.median / bandwidth.median,
        }
    };
    let crate::compare::Agreement { tokens, same, wrong, difference } = found.agreement;
    let report = Report {
        rounds: work.rounds,
        decode_tokens: work.tokens,
        prefill_tokens: work.prompt,
        llamita: side(0, model),
        candle: side(1, peer_model),
        decode_ratio: Spread::ratios(&found.decode),
        prefill_ratio: Spread::ratios(&found.prefill),
        agreement: Agreement { tokens, same, wrong, difference },
    };
    if json {
        println!("{}", serde_json::to_string(&report)?)
    } else {
        report.print()
    }
    Ok(())
}

impl Report {
    fn print(&self) {
        println!("one thread, {} rounds in turns: median (least to greatest)", self.rounds);
        for (name, side) in [("llamita", &self.llamita), ("candle", &self.candle)] {
            println!("\n{name}, {}", side.model);
            println!("  decode {:>5}, tokens/s   {}", self.decode_tokens, side.decode.text(1.0, 0));
            println!("  prefill {:>4}, tokens/s   {}", self.prefill_tokens, side.prefill.text(1.0, 0));
            println!("  weights per token, MB    {:>8.2}", side.bytes_per_token as f64 / 1e6);
            println!("  bandwidth of these, GB/s {}", side.bandwidth.text(1e9, 1));
            println!("  share of the roofline    {:>8.0} %", 100.0 * side.roofline_share);
        }
        println!("\nllamita to candle, round by round");
        println!("  decode                   {}", self.decode_ratio.text(1.0, 2));
        println!("  prefill                  {}", self.prefill_ratio.text(1.0, 2));
        let Agreement { tokens, same, wrong, difference } = self.agreement;
        println!(
            "\nsame greedy token {same} of {tokens}, wrong {wrong}, logits differ by {difference:.6} of their size"
        );
    }
}
