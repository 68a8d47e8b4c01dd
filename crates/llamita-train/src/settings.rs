//! What a run is made of: the file that `--config` names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use llamita::Config;
use llamita_kernels::quantized::Quant;
use serde::{Deserialize, Serialize};

/// Most weights of a model, and most tokens of a step: with more, memory would end before anything is trained.
const MAX_WEIGHTS: usize = 1 << 30;
const MAX_TOKENS: usize = 1 << 22;

/// All settings of a run. Those that a file leaves out are these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The shape of the model.
    pub model: Shape,
    /// How it is trained.
    pub training: Training,
}

/// The shape of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shape {
    /// Tokens of the vocabulary, 256 bytes and 3 special ones among them.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of the feed-forward layer.
    pub hidden_dim: usize,
    /// Transformer layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads, of which several query heads share one.
    pub n_kv_heads: usize,
    /// The longest text in tokens.
    pub context: usize,
    /// Base of the rope frequencies.
    pub rope_theta: f32,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            vocab_size: 1024,
            dim: 128,
            hidden_dim: 352,
            n_layers: 5,
            n_heads: 4,
            n_kv_heads: 2,
            context: 512,
            rope_theta: 10_000.0,
        }
    }
}

impl Shape {
    /// As the engine has it: with a shared classifier.
    pub fn config(&self) -> Result<Config> {
        let heads = self.n_heads.max(1);
        ensure!(
            self.dim.is_multiple_of(heads),
            "model.dim is {}, expected a multiple of model.n_heads, {heads}",
            self.dim
        );
        let config = Config {
            dim: self.dim,
            hidden_dim: self.hidden_dim,
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_size: self.dim / heads,
            vocab_size: self.vocab_size,
            seq_len: self.context,
            norm_eps: 1e-5,
            rope_theta: self.rope_theta,
            shared_classifier: true,
        };
        config.check().context("[model] is no shape that a model can have")?;
        Ok(config)
    }
}

/// How matrices inside the network are optimized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// AdamW (Loshchilov and Hutter, 2019).
    AdamW,
    /// Muon (Jordan et al., 2024), which makes the steps of a matrix orthogonal; AdamW for embedding and norms.
    Muon,
}

/// How a model is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// Updates of the weights.
    pub steps: usize,
    /// Sequences of one step.
    pub batch: usize,
    /// Tokens of a sequence, until `long_from`.
    pub sequence: usize,
    /// The share of the steps after which sequences are as long as the context, and so many fewer: the last part
    /// teaches what only long texts need. The loss jumps there, and the rate must still be high enough to make up
    /// for it.
    pub long_from: f64,
    /// How the matrices of the layers are optimized.
    pub optimizer: Optimizer,
    /// The highest learning rate, of what AdamW optimizes.
    pub learning_rate: f64,
    /// The highest learning rate, of what Muon optimizes.
    pub muon_rate: f64,
    /// Steps in which the rate rises from 0.
    pub warmup: usize,
    /// The part of the highest rate that is left in the end, after half a cosine.
    pub final_rate: f64,
    /// Decoupled weight decay, of the layers' matrices.
    pub weight_decay: f32,
    /// The longest that a step's gradient may be, of all weights together; longer ones are shortened.
    pub clip: f64,
    /// The share of numbers that are left out of the residual stream's inputs while training.
    pub dropout: f64,
    /// The share of the loss that is the divergence from the teacher's predictions.
    pub distillation: f64,
    /// Weights are rounded to four (`q4`) or eight (`q8`) bits in the forward pass, from `fake_quant_from` on.
    pub fake_quant: Option<FakeQuant>,
    /// The share of the steps after which `fake_quant` begins.
    pub fake_quant_from: f64,
    /// The share of the steps in which the texts of `--extra` are read as well.
    pub extra_until: f64,
    /// Decides the first weights, the order of the stories and what is dropped.
    pub seed: u64,
    /// Steps from one validation to the next.
    pub validate_every: usize,
    /// Tokens of the validation text that are predicted each time.
    pub validation_tokens: usize,
    /// Validations without a better one after which training ends; 0 for never.
    pub patience: usize,
    /// Minutes from one checkpoint to the next.
    pub checkpoint_minutes: f64,
}

/// What weights are rounded to while training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FakeQuant {
    /// Eight bits everywhere.
    Q8,
    /// Four bits, the embedding (which is the classifier) eight.
    Q4,
}

impl FakeQuant {
    /// Bits of the layers' matrices.
    pub const fn body(self) -> Quant {
        match self {
            Self::Q8 => Quant::Q8,
            Self::Q4 => Quant::Q4,
        }
    }
}

impl Default for Training {
    fn default() -> Self {
        Self {
            steps: 10_000,
            batch: 16,
            sequence: 256,
            long_from: 0.6,
            optimizer: Optimizer::AdamW,
            learning_rate: 3e-3,
            muon_rate: 0.02,
            warmup: 100,
            final_rate: 0.05,
            weight_decay: 0.1,
            clip: 1.0,
            dropout: 0.0,
            distillation: 0.5,
            fake_quant: None,
            fake_quant_from: 0.9,
            extra_until: 0.8,
            seed: 1,
            validate_every: 250,
            validation_tokens: 65_536,
            patience: 0,
            checkpoint_minutes: 5.0,
        }
    }
}

impl Settings {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let settings: Self = toml::from_str(&text).with_context(|| format!("{}", path.display()))?;
        settings.check().with_context(|| format!("{}", path.display()))?;
        Ok(settings)
    }

    /// Refuses numbers that make no sense.
    pub fn check(&self) -> Result<()> {
        let training = &self.training;
        self.model.config()?;
        for (name, count) in [
            ("steps", training.steps),
            ("batch", training.batch),
            ("validate_every", training.validate_every),
            ("validation_tokens", training.validation_tokens),
        ] {
            ensure!(count > 0, "training.{name} is 0, expected 1 or more");
        }
        let shape = &self.model;
        let per_layer =
            shape.dim.saturating_mul(shape.dim.saturating_add(shape.hidden_dim).saturating_mul(3));
        let all = per_layer
            .saturating_mul(shape.n_layers)
            .saturating_add(shape.vocab_size.saturating_mul(shape.dim));
        ensure!(
            all <= MAX_WEIGHTS,
            "[model] has some {all} weights, expected at most {MAX_WEIGHTS}: choose fewer or smaller layers"
        );
        ensure!(
            training.batch.saturating_mul(training.sequence) <= MAX_TOKENS,
            "training.batch is {} sequences of {} tokens, expected at most {MAX_TOKENS} tokens together: choose a \
             smaller one",
            training.batch,
            training.sequence
        );
        ensure!(
            (2..=self.model.context).contains(&training.sequence),
            "training.sequence is {}, expected 2 to model.context, {}",
            training.sequence,
            self.model.context
        );
        for (name, number) in [
            ("final_rate", training.final_rate),
            ("distillation", training.distillation),
            ("long_from", training.long_from),
            ("fake_quant_from", training.fake_quant_from),
            ("extra_until", training.extra_until),
        ] {
            ensure!((0.0..=1.0).contains(&number), "training.{name} is {number}, expected 0 to 1");
        }
        ensure!(
            (0.0..1.0).contains(&training.dropout),
            "training.dropout is {}, expected 0 to less than 1",
            training.dropout
        );
        for (name, number) in [
            ("learning_rate", training.learning_rate),
            ("muon_rate", training.muon_rate),
            ("clip", training.clip),
            ("checkpoint_minutes", training.checkpoint_minutes),
        ] {
            ensure!(
                number.is_finite() && number > 0.0,
                "training.{name} is {number}, expected a positive number"
            );
        }
        ensure!(
            training.weight_decay.is_finite() && training.weight_decay >= 0.0,
            "training.weight_decay is {}, expected 0 or more",
            training.weight_decay
        );
        Ok(())
    }

    /// Sequences of a step, and their length; steps are counted from 0.
    pub fn sequences(&self, step: usize) -> (usize, usize) {
        let Training { steps, batch, sequence, long_from, .. } = self.training;
        if (step as f64) < steps as f64 * long_from {
            return (batch, sequence);
        }
        ((batch * sequence / self.model.context).max(1), self.model.context)
    }

    /// What weights are rounded to at a step.
    pub fn fake_quant(&self, step: usize) -> Option<FakeQuant> {
        let Training { steps, fake_quant, fake_quant_from, .. } = self.training;
        fake_quant.filter(|_| step as f64 >= steps as f64 * fake_quant_from)
    }

    /// What has to be the same at two steps for their losses to compare.
    pub fn phase(&self, step: usize) -> impl PartialEq + use<> {
        (self.sequences(step).1, self.fake_quant(step))
    }

    /// The share of the highest rate at a step, which are counted from 0: a linear rise, then half a cosine.
    pub fn rate(&self, step: usize) -> f64 {
        let Training { steps, warmup, final_rate, .. } = self.training;
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let done = (step - warmup) as f64 / (steps.saturating_sub(warmup)).max(1) as f64;
        final_rate + (1.0 - final_rate) * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        let mut settings = Settings::default();
        settings.training = Training { steps: 110, warmup: 10, final_rate: 0.1, ..settings.training };
        let rates: Vec<f64> = (0..110).map(|step| settings.rate(step)).collect();
        assert_eq!((rates[0], rates[9], rates[10]), (0.1, 1.0, 1.0));
        assert!((rates[60] - 0.55).abs() < 1e-12 && (rates[109] - 0.1).abs() < 1e-3);
        assert!(rates[10..].is_sorted_by(|a, b| a >= b));
        settings.training.warmup = 500;
        assert!((0..110).all(|step| settings.rate(step) <= 1.0));
    }

    #[test]
    fn the_last_sequences_are_long() {
        let mut settings = Settings::default();
        settings.model.context = 512;
        settings.training = Training { steps: 100, batch: 3, sequence: 256, ..settings.training };
        assert_eq!([59, 60].map(|step| settings.sequences(step)), [(3, 256), (1, 512)]);
        settings.training.batch = 1;
        assert_eq!(settings.sequences(99), (1, 512));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let cases = [
            ("[model]\ndim = 30", "model.dim is 30, expected a multiple of model.n_heads, 4"),
            ("[model]\nn_kv_heads = 3", "3 key/value heads do not divide 4 heads"),
            ("[model]\nn_layers = 0", "n_layers is 0"),
            ("[model]\ndim = 8388608", "expected at most 1073741824"),
            ("[training]\nbatch = 1000000000000000", "expected at most 4194304 tokens together"),
            ("[training]\nsteps = 0", "training.steps is 0"),
            ("[training]\nsequence = 513", "training.sequence is 513, expected 2 to model.context, 512"),
            ("[training]\ndropout = 1.0", "training.dropout is 1"),
            ("[training]\nfinal_rate = nan", "training.final_rate is NaN"),
            ("[training]\nclip = 0.0", "training.clip is 0"),
            ("[training]\nweight_decay = -1.0", "training.weight_decay is -1"),
            ("[training]\noptimizer = \"sgd\"", "unknown variant `sgd`, expected `adamw` or `muon`"),
            ("[training]\nbach = 3", "unknown field `bach`"),
        ];
        let folder = std::env::temp_dir().join(format!("llamita-train-settings-{}", std::process::id()));
        for (text, expected) in cases {
            fs::write(&folder, text).unwrap();
            let error = format!("{:#}", Settings::read(&folder).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
        fs::write(&folder, "").unwrap();
        assert_eq!(Settings::read(&folder).unwrap(), Settings::default());
        fs::remove_file(&folder).unwrap();
    }
}
