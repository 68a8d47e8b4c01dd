//! Two models do the same work in turns.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::bandwidth::Bandwidth;

/// A model that computes tokens, however it does so.
pub trait Model {
    /// Tokens that it knows.
    fn vocab_size(&self) -> usize;

    /// Bytes of the weights that a pass over one token reads.
    fn bytes_per_token(&self) -> usize;

    /// Computes tokens at consecutive positions from `position` on, and copies the logits of the last of them
    /// to `out`, where they are wanted. Position 0 begins another text.
    fn forward(&mut self, tokens: &[u32], position: usize, out: Option<&mut Vec<f32>>) -> Result<()>;
}

/// What each model does in a round.
pub struct Work {
    /// Tokens of the prompt for prefill.
    pub prompt: usize,
    /// Tokens to decode.
    pub tokens: usize,
    /// How often.
    pub rounds: usize,
}

impl Work {
    /// Positions that it needs.
    pub fn context(&self) -> usize {
        self.prompt.max(DECODE_PROMPT + self.tokens.max(CHECKED))
    }
}

/// What was measured: of llamita first, then of its peer.
pub struct Comparison {
    /// Tokens per second of each round.
    pub decode: [Vec<f64>; 2],
    /// Tokens per second of each round.
    pub prefill: [Vec<f64>; 2],
    /// Bytes per second of each round, over as many bytes as the model reads for a token.
    pub bandwidth: [Vec<f64>; 2],
    /// Bytes of the weights that a token reads.
    pub bytes_per_token: [usize; 2],
    /// How far the two compute the same.
    pub agreement: Agreement,
}

/// How far two models agree on the logits of the same tokens.
pub struct Agreement {
    /// Tokens that were compared.
    pub tokens: usize,
    /// Of these, with the same most probable next token.
    pub same: usize,
    /// Of the others, those where llamita's two best logits lie further apart than the two models do.
    pub wrong: usize,
    /// Root mean square of the logits' differences, in units of that of the logits.
    pub difference: f64,
}

/// Tokens of the prompt before decoding.
const DECODE_PROMPT: usize = 8;
/// Tokens behind it whose logits are compared.
const CHECKED: usize = 64;
/// Of the logits' size: unrelated models differ by 1.4, random weights rounded to int4 in two ways by 0.6, to
/// int8 by 0.03, and models of the same f32 weights by 0.000001.
const DIFFERENCE: f64 = 0.9;

/// Measures llamita and its peer in turns.
pub fn run(mut models: [&mut dyn Model; 2], work: &Work) -> Result<Comparison> {
    let [ours, peer] = models.each_ref().map(|model| model.vocab_size());
    ensure!(
        ours == peer,
        "the models have vocabularies of {ours} and {peer} tokens: give two files of one model"
    );
    let agreement = compare(&mut models)?;
    ensure!(
        agreement.difference < DIFFERENCE,
        "the logits differ by {:.2} of their size, expected less than {DIFFERENCE}: the two files are not the \
         same model, or one of the programs computes another",
        agreement.difference
    );

    let bytes_per_token = models.each_ref().map(|model| model.bytes_per_token());
    let memory = [Bandwidth::new(bytes_per_token[0])?, Bandwidth::new(bytes_per_token[1])?];
    let mut result = Comparison {
        decode: [vec![], vec![]],
        prefill: [vec![], vec![]],
        bandwidth: [vec![], vec![]],
        bytes_per_token,
        agreement,
    };
    // The first round brings weights and memory to where the others find them.
    for round in 0..=work.rounds {
        for (i, model) in models.iter_mut().enumerate() {
            let rates = [decode(*model, work.tokens)?, prefill(*model, work.prompt)?, memory[i].read()];
            let lists = [&mut result.decode[i], &mut result.prefill[i], &mut result.bandwidth[i]];
            if round > 0 {
                lists.into_iter().zip(rates).for_each(|(list, rate)| list.push(rate));
            }
        }
    }
    Ok(result)
}

/// Tokens per second, one pass for each.
fn decode(model: &mut dyn Model, count: usize) -> Result<f64> {
    let tokens = random_tokens(model.vocab_size(), DECODE_PROMPT + count);
    let (prompt, rest) = tokens.split_at(DECODE_PROMPT);
    model.forward(prompt, 0, None)?;
    let start = Instant::now();
    for (i, token) in rest.iter().enumerate() {
        model.forward(&[*token], DECODE_PROMPT + i, None)?;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Tokens per second, together.
fn prefill(model: &mut dyn Model, count: usize) -> Result<f64> {
    let tokens = random_tokens(model.vocab_size(), count);
    let start = Instant::now();
    model.forward(&tokens, 0, None)?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// The logits of both for the same text: a prompt, and what llamita takes for most probable after it.
fn compare([ours, peer]: &mut [&mut dyn Model; 2]) -> Result<Agreement> {
    let mut tokens = random_tokens(ours.vocab_size(), DECODE_PROMPT);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let mut agreement = Agreement { tokens: CHECKED, same: 0, wrong: 0, difference: 0.0 };
    let (mut differences, mut squares) = (0.0, 0.0);
    for i in 0..CHECKED {
        let position = if i == 0 { 0 } else { DECODE_PROMPT + i - 1 };
        ours.forward(&tokens, position, Some(&mut a))?;
        peer.forward(&tokens, position, Some(&mut b))?;
        let difference: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        differences += difference;
        squares += a.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>();
        let (best, peer_best) = (argmax(&a), argmax(&b));
        // In standard deviations of what the difference of two logits may be off by.
        let apart = 4.0 * (2.0 * difference / a.len() as f64).sqrt();
        agreement.same += usize::from(best == peer_best);
        agreement.wrong += usize::from(f64::from(a[best] - a[peer_best]) > apart);
        tokens = vec![best as u32];
    }
    agreement.difference = (differences / squares).sqrt();
    Ok(agreement)
}

fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0)
}

/// Tokens of the vocabulary, the same ones every time.
fn random_tokens(vocab_size: usize, count: usize) -> Vec<u32> {
    let mut random = 133_742u64;
    let token = |_| {
        // xorshift (G. Marsaglia, 2003).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % vocab_size as u64) as u32
    };
    (0..count).map(token).collect()
}
