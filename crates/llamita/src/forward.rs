//! The forward pass, in the order of the paper (Touvron et al., 2023).

use core::fmt;

use llamita_kernels::quantized::Input;
use llamita_kernels::{CacheMut, Kernels, LANES, Panel, Rows, Team};

use crate::config::Config;
use crate::profile::{Profile, Stage};
use crate::rope::Rope;
use crate::state::{State, quantize};
use crate::weights::{Matrix, Norm, Pass, Weights};

/// A model that is ready to compute: weights, memory, and cores to do it.
pub struct Engine<'a, W, T> {
    weights: W,
    state: State<'a>,
    team: T,
    kernels: Kernels,
    /// Where the time of the passes went; [`Profile::OFF`] at first.
    pub profile: Profile,
}

/// A pass that cannot be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// The weights could not be had.
    Weights(E),
    /// More positions than the state's context: needed, context.
    Context(usize, usize),
    /// No tokens, or more than the state's batch: found, limit.
    Batch(usize, usize),
    /// More logits than tokens, or than the state has room for: found, limit.
    Logits(usize, usize),
    /// A prompt without tokens, or with more than there is room for: found, room.
    Prompt(usize, usize),
    /// A token that the vocabulary does not have: found, size of the vocabulary.
    Token(u32, usize),
    /// The logits are not finite numbers: the weights are damaged.
    NotFinite,
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weights(error) => error.fmt(f),
            Self::Context(needed, context) => {
                write!(f, "the text needs {needed} positions, the context has {context}: shorten it")
            }
            Self::Batch(found, limit) => write!(f, "a pass of {found} tokens, expected 1 to {limit}"),
            Self::Logits(found, limit) => write!(f, "logits of {found} tokens, expected at most {limit}"),
            Self::Prompt(found, room) => {
                write!(f, "a prompt of {found} tokens, expected 1 to {room}")
            }
            Self::Token(found, size) => {
                write!(f, "token {found} is not in the vocabulary of {size}: model and tokenizer do not fit")
            }
            Self::NotFinite => {
                f.write_str("the logits are not finite: the model file is damaged, get it again")
            }
        }
    }
}

impl<E: core::error::Error> core::error::Error for Error<E> {}

impl<'a, W: Weights, T: Team> Engine<'a, W, T> {
    /// An engine from its parts.
    ///
    /// # Panics
    /// If the state was made for another config than that of the weights.
    pub fn new(weights: W, state: State<'a>, team: T, kernels: Kernels) -> Self {
        // Not `assert_eq`, which would take 1 KB of a chip's flash to print both.
        assert!(state.config == *weights.config(), "a state for the config of the weights");
        Self { weights, state, team, kernels, profile: Profile::OFF }
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        self.weights.config()
    }

    /// The weights, for example to ask what they have read.
    pub const fn weights(&self) -> &W {
        &self.weights
    }

    /// The memory of the passes.
    pub const fn state(&self) -> &State<'a> {
        &self.state
    }

    /// The cores.
    pub const fn team(&self) -> &T {
        &self.team
    }

    /// The arithmetic.
    pub const fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// Counts the time since the end of a pass for a stage that is none of its own.
    pub(crate) fn end(&mut self, stage: Stage) {
        self.profile.end(stage, self.weights.waited());
    }

    /// Computes tokens at consecutive positions from `position` on, up to the state's batch at once, and
    /// returns the logits of the last `logits` of them: (logits, vocab_size). They may be changed at will.
    ///
    /// The positions before must have been computed; those after are forgotten. Results do not depend on
    /// how a text is cut into passes, nor on the number of threads.
    ///
    /// # Errors
    /// If the tokens do not fit the state or the vocabulary, or the weights cannot be had. What was computed
    /// for earlier positions stays valid.
    pub fn forward(
        &mut self,
        tokens: &[u32],
        position: usize,
        logits: usize,
    ) -> Result<&mut [f32], Error<W::Error>> {
        self.check(self.config(), tokens, position, logits)?;
        while let Err(error) = self.pass(tokens, position, logits) {
            if !matches!(&error, Error::Weights(error) if self.weights.retry(error)) {
                return Err(error);
            }
        }
        Ok(&mut self.state.logits[..logits * self.state.config.vocab_size])
    }

    /// The pass itself; it leaves the logits in the state.
    fn pass(&mut self, tokens: &[u32], position: usize, logits: usize) -> Result<(), Error<W::Error>> {
        let config = *self.weights.config();
        let Self { weights, state, team, kernels, profile } = self;
        let positions = state.capacity().context.next_multiple_of(LANES);
        let State { x, xb, hidden, scratch, logits: all_logits, rope, keys, values, .. } = state;
        let (kernels, batch) = (*kernels, tokens.len());
        let machine = &mut Machine { weights, scratch, team, kernels, profile };
        let (mut keys, mut values) = (keys.reborrow(), values.reborrow());
        let x = &mut x[..batch * config.dim];
        machine.weights.begin(Pass { position, batch, logits });
        machine.profile.start(machine.weights.waited());

        for (&token, x) in tokens.iter().zip(x.chunks_exact_mut(config.dim)) {
            machine.weights.embed(token, x).map_err(Error::Weights)?;
        }
        rope.turn_to(position, batch);

        for layer in 0..config.n_layers {
            // Attention, added to the residual stream.
            let normed = &mut xb[..batch * config.dim];
            rmsnorm(kernels, &config, x, machine.weights.norm(Norm::Attention(layer)), normed);
            machine.end(Stage::NormAndRope);

            let (q, rest) = hidden.split_at_mut(batch * config.q_dim());
            let (k, rest) = rest.split_at_mut(batch * config.kv_dim());
            let v = &mut rest[..batch * config.kv_dim()];
            let qkv = [Matrix::Wq(layer), Matrix::Wk(layer), Matrix::Wv(layer)];
            let outs = [&mut *q, &mut *k, &mut *v].map(|out| Panel::new(out, batch));
            machine.product(qkv, normed, outs, Set, nothing)?;
            machine.end(Stage::Projections);

            rotate(kernels, &config, rope, q, k);
            machine.end(Stage::NormAndRope);

            let caches = [&mut keys, &mut values].map(|cache| {
                let mut layer = cache.take(config.n_kv_heads * positions, config.head_size);
                core::iter::from_fn(move || Some(layer.take(positions, config.head_size)))
            });
            let heads = &mut xb[..batch * config.q_dim()];
            attention(machine, &config, position, [q, k, v], caches, heads);
            machine.end(Stage::Attention);

            machine.product([Matrix::Wo(layer)], heads, [Panel::new(x, batch)], Add, nothing)?;
            machine.end(Stage::Projections);

            // The feed-forward layer, added to the residual stream.
            let normed = &mut xb[..batch * config.dim];
            rmsnorm(kernels, &config, x, machine.weights.norm(Norm::FeedForward(layer)), normed);
            machine.end(Stage::NormAndRope);

            let (gate, rest) = hidden.split_at_mut(batch * config.hidden_dim);
            let up = &mut rest[..batch * config.hidden_dim];
            let sides = [Panel::new(gate, batch), Panel::new(up, batch)];
            let matrices = [Matrix::W1(layer), Matrix::W3(layer)];
            machine.product(matrices, normed, sides, Set, |[gate, up]| {
                for token in 0..batch {
                    kernels.swiglu(gate.row_mut(token), up.row_mut(token));
                }
            })?;
            machine.product([Matrix::W2(layer)], gate, [Panel::new(x, batch)], Add, nothing)?;
            machine.end(Stage::FeedForward);
        }

        // Logits of the last tokens.
        let last = &x[(batch - logits) * config.dim..];
        let normed = &mut xb[..logits * config.dim];
        let all_logits = &mut all_logits[..logits * config.vocab_size];
        if logits > 0 {
            rmsnorm(kernels, &config, last, machine.weights.norm(Norm::Final), normed);
            machine.end(Stage::NormAndRope);
            let out = Panel::new(all_logits, logits);
            machine.product([Matrix::Classifier], normed, [out], Set, nothing)?;
            machine.end(Stage::Classifier);
        }
        Ok(())
    }

    fn check(
        &self,
        config: &Config,
        tokens: &[u32],
        position: usize,
        logits: usize,
    ) -> Result<(), Error<W::Error>> {
        let capacity = self.state.capacity();
        if tokens.is_empty() || tokens.len() > capacity.batch {
            return Err(Error::Batch(tokens.len(), capacity.batch));
        }
        let most = capacity.logits.min(tokens.len());
        if logits > most {
            return Err(Error::Logits(logits, most));
        }
        let needed = position.saturating_add(tokens.len());
        if needed > capacity.context {
            return Err(Error::Context(needed, capacity.context));
        }
        match tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
            Some(&token) => Err(Error::Token(token, config.vocab_size)),
            None => Ok(()),
        }
    }
}

/// `out = x / rms(x) * weight` for each token (Zhang and Sennrich, 2019): (batch, dim) both.
fn rmsnorm(kernels: Kernels, config: &Config, x: &[f32], weight: &[f32], out: &mut [f32]) {
    for (x, out) in x.chunks_exact(config.dim).zip(out.chunks_exact_mut(config.dim)) {
        let mean = kernels.sum_of_squares(x) / config.dim as f32;
        kernels.scale(x, 1.0 / libm::sqrtf(mean + config.norm_eps), weight, out);
    }
}

/// Turns queries (batch, q_dim) and keys (batch, kv_dim) to their positions, and scales the queries as
/// attention expects them.
fn rotate(kernels: Kernels, config: &Config, rope: &Rope<'_>, q: &mut [f32], k: &mut [f32]) {
    let scale = 1.0 / libm::sqrtf(config.head_size as f32);
    // Several at a time, which compilers for chips without vectors do not make of one.
    let (eights, rest) = q.as_chunks_mut::<LANES>();
    eights.iter_mut().for_each(|eight| eight.iter_mut().for_each(|q| *q *= scale));
    rest.iter_mut().for_each(|q| *q *= scale);
    for (heads, dim) in [(q, config.q_dim()), (k, config.kv_dim())] {
        for (token, heads) in heads.chunks_exact_mut(dim).enumerate() {
            let (cos, sin) = rope.at(token);
            for head in heads.chunks_exact_mut(config.head_size) {
                kernels.rope(head, cos, sin);
            }
        }
    }
}

/// What a product does with what its output holds.
use Output::{Add, Set};
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    Set,
    Add,
}

/// What is done with outputs that are complete already. A function, not closures: one product of a matrix serves all.
fn nothing<const N: usize>(_: [&mut Panel<'_>; N]) {}

/// What a pass computes with.
struct Machine<'m, W, T> {
    weights: &'m mut W,
    scratch: &'m mut [f32],
    team: &'m mut T,
    kernels: Kernels,
    profile: &'m mut Profile,
}

impl<W: Weights, T: Team> Machine<'_, W, T> {
    /// Counts the time since the last call for a stage.
    fn end(&mut self, stage: Stage) {
        self.profile.end(stage, self.weights.waited());
    }

    /// Products of one input, (batch, columns), with matrices that the tape has side by side; each `outs` is
    /// (batch, rows). `finish` runs on columns of the outputs that are complete, the same ones of each.
    ///
    /// One step of the team where all rows are lent at once, else one for each time that some are.
    fn product<const N: usize>(
        &mut self,
        matrices: [Matrix; N],
        x: &[f32],
        mut outs: [Panel<'_>; N],
        output: Output,
        finish: impl Fn([&mut Panel<'_>; N]) + Sync,
    ) -> Result<(), Error<W::Error>> {
        let kernels = self.kernels;
        self.weights.observe(matrices[0], x);
        let rows = outs.each_ref().map(Panel::width);
        let (batch, columns) = (outs[0].rows(), x.len() / outs[0].rows());
        let mut done = [0; N];
        let (mut input, mut scratch) = (Input::from(x), Some(&mut *self.scratch));
        while done != rows {
            let lent = self.weights.lend(matrices, done).map_err(Error::Weights)?;
            let counts: [usize; N] = core::array::from_fn(|i| lent[i].count(columns).min(rows[i] - done[i]));
            assert!(counts.iter().sum::<usize>() > 0, "weights lend at least one row");
            let whole = counts == rows;
            // Once per product: the groups are the same for all of its quantized matrices.
            if let Some(group) = lent.iter().find_map(Rows::group)
                && let Some(scratch) = scratch.take()
            {
                input.quantized = quantize(kernels, x, batch, group, scratch);
            }

            let parts = self.team.parts();
            let mut rest = outs.each_mut().map(Panel::reborrow);
            for i in 0..N {
                let _ = rest[i].take(done[i]);
            }
            // Rows by the first of them: to hand over little takes few steps.
            let shares = (0..parts).map(|part| {
                core::array::from_fn(|i| {
                    let share = share(part, counts[i], parts)..share(part + 1, counts[i], parts);
                    (share.start, rest[i].take(share.len()))
                })
            });
            self.team.run(shares, |mut share: [(usize, Panel<'_>); N]| {
                for ((first, out), lent) in share.iter_mut().zip(&lent) {
                    let weights = lent.slice(*first..*first + out.width(), columns);
                    kernels.matmul(weights, input, out.reborrow(), output == Add);
                }
                if whole {
                    finish(share.each_mut().map(|(_, out)| out));
                }
            });
            for i in 0..N {
                done[i] += counts[i];
            }
            if !whole && done == rows {
                finish(outs.each_mut());
            }
        }
        Ok(())
    }
}

/// Where a part's rows begin, in whole vectors.
const fn share(part: usize, rows: usize, parts: usize) -> usize {
    let start = rows.div_ceil(LANES) * part / parts * LANES;
    if start < rows { start } else { rows }
}

/// Grouped-query attention (Ainslie et al., 2023): a part for each key/value head writes its keys and values
/// to the cache and computes the query heads that share them.
///
/// `qkv` are (batch, q_dim), (batch, kv_dim) twice; `out` is (batch, q_dim); keys and values come by heads.
fn attention<'c, W, T: Team>(
    machine: &mut Machine<'_, W, T>,
    config: &Config,
    position: usize,
    qkv: [&mut [f32]; 3],
    [keys, values]: [impl Iterator<Item = CacheMut<'c>>; 2],
    out: &mut [f32],
) {
    let Machine { scratch, team, kernels, .. } = machine;
    let Config { head_size, n_kv_heads, .. } = *config;
    let group = config.n_heads / n_kv_heads * head_size;
    let batch = out.len() / config.q_dim();
    let [mut q, mut k, mut v] = qkv.map(|x| Panel::new(x, batch));
    let mut out = Panel::new(out, batch);
    // Shares of the scratch, at least a number for each position.
    let scores = scratch.chunks_exact_mut(scratch.len() / n_kv_heads).take(n_kv_heads);
    let caches = scores.zip(keys.zip(values));
    let heads = caches.map(|(scores, (keys, values))| {
        (keys, values, scores, q.take(group), k.take(head_size), v.take(head_size), out.take(group))
    });
    team.run(heads, |(mut keys, mut values, scores, mut q, mut k, mut v, mut out)| {
        for token in 0..batch {
            let at = position + token;
            keys.remember(at, k.row_mut(token));
            values.remember(at, v.row_mut(token));
            let queries = q.row_mut(token).chunks_exact(head_size);
            for (q, out) in queries.zip(out.row_mut(token).chunks_exact_mut(head_size)) {
                kernels.attention(q, keys.as_cache(), values.as_cache(), scores, at + 1, out);
            }
        }
    });
}
