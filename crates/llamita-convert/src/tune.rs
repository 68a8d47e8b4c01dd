//! Quantized weights that are tuned until the model says what the original says.
//!
//! Integers, scales and norms are changed together, by steps along the gradient, so that the predictions for the
//! tokens of texts come near those of the original: its probabilities are the aim, not the texts themselves, of
//! which a few hundred are enough (Hinton et al., 2015, "Distilling the knowledge in a neural network"; Liu et
//! al., 2023, "LLM-QAT: data-free quantization aware training").

mod latent;
mod network;

use llamita::format::TensorName;
use llamita::weights::{Format, Tensor};
use llamita::{Config, Tape};
use llamita_kernels::Kernels;
use llamita_kernels::quantized::Layout;

use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::quantize::Quantizer;
use crate::source::{Integers, Source, check_rows};
use crate::vocabulary::Vocabulary;
use latent::{Latent, LatentNorm, Rates};
use network::{Network, Tensors, rope};

/// Texts are shared out among so many threads, whatever the machine, so that sums have one order.
const SHARES: usize = 4;

/// How a model is tuned.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Steps along the gradient.
    pub steps: usize,
    /// Texts of a step.
    pub batch: usize,
    /// How far weights go in the first steps, in parts of a step of their integers.
    pub rate: f32,
    /// How far scales and norms go in the first steps, in parts of themselves.
    pub scale_rate: f32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { steps: 240, batch: 8, rate: 0.02, scale_rate: 0.0005 }
    }
}

/// A tensor that takes part.
enum Tuned {
    Matrix(Latent),
    Norm(LatentNorm),
    /// Stays as it is.
    Fixed,
}

/// A source whose weights are quantized for a plan and tuned; all in memory.
pub struct TunedSource {
    config: Config,
    name: Option<String>,
    vocabulary: Option<Vocabulary>,
    tensors: Vec<Stored>,
}

struct Stored {
    format: Format,
    floats: Vec<f32>,
    values: Vec<i8>,
    scales: Vec<u16>,
}

/// Tunes what `plan` quantizes of a model, for texts as tokens, which are used in turn.
///
/// `quantizer` makes what is begun with; a calibrated one saves many steps. `progress` hears the number of each step,
/// from 0, and the mean divergence of the predictions from the original's, in nats per token. The result is the same
/// each time on CPUs of one kind.
pub fn tune(
    source: &mut dyn Source,
    plan: &Plan,
    quantizer: &mut dyn Quantizer,
    texts: &[Vec<u32>],
    tuning: Tuning,
    progress: &mut dyn FnMut(usize, f64),
) -> Result<TunedSource> {
    let config = *source.config();
    let texts = texts.iter().map(|text| &text[..text.len().min(config.seq_len)]);
    let texts: Vec<_> = texts.filter(|text| !text.is_empty()).collect();
    if let Some(token) = texts.iter().copied().flatten().find(|&&token| token as usize >= config.vocab_size) {
        return Err(Error::refused(format_args!(
            "the texts have token {token}, the vocabulary has {}: encode them with the model's own tokenizer",
            config.vocab_size
        )));
    }
    if texts.is_empty() {
        return Err(Error::refused(
            "there are no texts to tune with: give some like those that it will write",
        ));
    }
    let mut original = Tensors::new();
    let mut tuned = Vec::new();
    for tensor in Tape::tensors(&config) {
        let weights = if written(&config, tensor) { read(source, tensor)? } else { Vec::new() };
        tuned.push(Tuned::new(plan, quantizer, tensor, &weights)?);
        original.push(weights);
    }

    let rope = rope(&config);
    let mut weights = original.clone();
    let mut gradients: Vec<Tensors> = (0..SHARES).map(|_| zeros(&original)).collect();
    for step in 0..tuning.steps {
        tuned.iter().zip(&mut weights).for_each(|(tuned, weights)| tuned.rounded(weights));
        let batch = (0..tuning.batch).map(|i| texts[(step * tuning.batch + i) % texts.len()]);
        let batch: Vec<_> = batch.collect();
        let [teacher, student] = [&original, &weights].map(|weights| Network::new(&config, weights, &rope));
        let losses = std::thread::scope(|scope| {
            let shares = gradients.iter_mut().enumerate().map(|(share, gradients)| {
                let (batch, teacher, student) = (&batch, &teacher, &student);
                scope.spawn(move || {
                    gradients.iter_mut().for_each(|tensor| tensor.fill(0.0));
                    let texts = batch.iter().skip(share).step_by(SHARES);
                    texts.map(|text| distil(teacher, student, text, gradients)).sum::<f64>()
                })
            });
            let shares: Vec<_> = shares.collect();
            shares.into_iter().map(|share| share.join().expect("tuning does not panic")).sum::<f64>()
        });
        if !losses.is_finite() {
            return Err(Error::refused(format_args!(
                "the predictions are no numbers any more at step {step} of the tuning: the model may be damaged, \
                 or leave it untuned with --tune 0"
            )));
        }
        let tokens: usize = batch.iter().map(|text| text.len()).sum();
        progress(step, losses / tokens as f64);

        let (sum, others) = gradients.split_first_mut().expect("there are shares");
        for other in others {
            for (sum, other) in sum.iter_mut().flatten().zip(other.iter().flatten()) {
                *sum += other;
            }
        }
        // From full rates to none, along half a wave.
        let left = 0.5 + 0.5 * (std::f32::consts::PI * step as f32 / tuning.steps as f32).cos();
        let rates = Rates::at(step, left * tuning.rate, left * tuning.scale_rate);
        tuned.iter_mut().zip(&*sum).for_each(|(tuned, gradient)| tuned.step(gradient, rates));
    }

    let tensors = Tape::tensors(&config).zip(tuned).zip(original);
    let tensors = tensors.map(|((tensor, tuned), original)| {
        let mut stored =
            Stored { format: plan.format(tensor), floats: original, values: Vec::new(), scales: Vec::new() };
        match tuned {
            Tuned::Matrix(latent) => {
                stored.floats = Vec::new();
                (stored.values, stored.scales) = latent.integers();
            }
            Tuned::Norm(norm) => stored.floats = norm.weights().collect(),
            Tuned::Fixed => stored.format = Format::F32,
        }
        stored
    });
    Ok(TunedSource {
        config,
        name: source.name().map(String::from),
        vocabulary: source.vocabulary().cloned(),
        tensors: tensors.collect(),
    })
}

/// Whether a tensor has numbers of its own.
fn written(config: &Config, tensor: Tensor) -> bool {
    network::place(config, tensor) == Tape::index(config, tensor)
}

fn read(source: &mut dyn Source, tensor: Tensor) -> Result<Vec<f32>> {
    let (rows, columns) = Tape::shape(source.config(), tensor);
    let mut weights = vec![0.0; rows * columns];
    source.read(tensor, 0, &mut weights)?;
    if weights.iter().any(|weight| !weight.is_finite()) {
        return Err(Error::refused(format_args!(
            "a weight of tensor {} is infinite or not a number: \
             the file is damaged, copy or download it again",
            TensorName(tensor)
        )));
    }
    Ok(weights)
}

fn zeros(tensors: &Tensors) -> Tensors {
    tensors.iter().map(|tensor| vec![0.0; tensor.len()]).collect()
}

/// Adds the gradients of the divergence of the student's predictions from the teacher's, and returns it, both
/// summed over the tokens.
fn distil(teacher: &Network<'_>, student: &Network<'_>, text: &[u32], gradients: &mut Tensors) -> f64 {
    let kernels = Kernels::detect();
    let vocabulary = teacher.config().vocab_size;
    let mut expected = teacher.forward(text).logits;
    let mut pass = student.forward(text);
    let mut found = std::mem::take(&mut pass.logits);
    let mut loss = 0.0;
    for (p, q) in expected.chunks_exact_mut(vocabulary).zip(found.chunks_exact_mut(vocabulary)) {
        kernels.softmax(p);
        kernels.softmax(q);
        for (p, q) in p.iter().zip(q) {
            if *p > 0.0 {
                loss += f64::from(*p * (*p / q.max(f32::MIN_POSITIVE)).ln());
            }
            *q -= *p;
        }
    }
    student.backward(text, &pass, &found, gradients);
    loss
}

impl Tuned {
    fn new(plan: &Plan, quantizer: &mut dyn Quantizer, tensor: Tensor, weights: &[f32]) -> Result<Self> {
        let (rows, columns) = Tape::shape(plan.config(), tensor);
        let integers = Integers::of(plan.format(tensor), columns);
        Ok(match (tensor, integers) {
            (Tensor::Norm(_), _) => Self::Norm(LatentNorm::new(weights)),
            (_, Some(integers)) if !weights.is_empty() => {
                let Integers { quant, group } = integers;
                let layout = Layout { quant, rows, columns, group };
                let mut values = vec![0; weights.len()];
                let mut scales = vec![0; rows * integers.groups(columns)];
                quantizer.quantize(tensor, 0, layout, weights, &mut values, &mut scales)?;
                Self::Matrix(Latent::new(integers, columns, &values, &scales))
            }
            _ => Self::Fixed,
        })
    }

    fn rounded(&self, weights: &mut Vec<f32>) {
        match self {
            Self::Matrix(latent) => latent.rounded(weights),
            Self::Norm(norm) => {
                weights.clear();
                weights.extend(norm.weights());
            }
            Self::Fixed => {}
        }
    }

    fn step(&mut self, gradient: &[f32], rates: Rates) {
        match self {
            Self::Matrix(latent) => latent.step(gradient, rates),
            Self::Norm(norm) => norm.step(gradient, rates),
            Self::Fixed => {}
        }
    }
}

impl TunedSource {
    fn tensor(&self, tensor: Tensor) -> &Stored {
        &self.tensors[network::place(&self.config, tensor)]
    }
}

impl Source for TunedSource {
    fn config(&self) -> &Config {
        &self.config
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.as_ref()
    }

    /// Only files with nothing but `f32` have them, of which there is nothing to tune.
    fn rope_tables(&self) -> Option<&[u8]> {
        None
    }

    fn stored(&self, tensor: Tensor) -> Format {
        self.tensor(tensor).format
    }

    fn read(&mut self, tensor: Tensor, first_row: usize, out: &mut [f32]) -> Result<()> {
        let columns = check_rows(&self.config, tensor, first_row, out.len());
        let Stored { format, floats, values, scales } = self.tensor(tensor);
        let start = first_row * columns;
        match Integers::of(*format, columns) {
            Some(integers) => {
                let groups = integers.groups(columns);
                for (out, place) in out.iter_mut().zip(start..) {
                    let scale = scales[place / columns * groups + place % columns / integers.group];
                    *out = half::f16::from_bits(scale).to_f32() * f32::from(values[place]);
                }
            }
            None => out.copy_from_slice(&floats[start..][..out.len()]),
        }
        Ok(())
    }

    fn read_integers(
        &mut self,
        tensor: Tensor,
        first_row: usize,
        values: &mut [i8],
        scales: &mut [u16],
    ) -> Result<()> {
        let columns = check_rows(&self.config, tensor, first_row, values.len());
        let stored = self.tensor(tensor);
        let integers = Integers::of(stored.format, columns).expect("the tensor is stored in integers");
        let groups = integers.groups(columns);
        values.copy_from_slice(&stored.values[first_row * columns..][..values.len()]);
        scales.copy_from_slice(&stored.scales[first_row * groups..][..scales.len()]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Group, Precision};
    use crate::quantize::Rounding;
    use llamita::weights::{Matrix, Norm};
    use llamita_kernels::quantized::Quant;

    const CONFIG: Config = Config {
        dim: 32,
        hidden_dim: 40,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_size: 8,
        vocab_size: 24,
        seq_len: 16,
        norm_eps: 1e-5,
        rope_theta: 1e4,
        shared_classifier: false,
    };

    fn numbers() -> impl FnMut() -> f32 {
        let mut random = 0x9e37_79b9_u32;
        move || {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            (random >> 8) as f32 / 8_388_608.0 - 1.0
        }
    }

    fn model() -> TunedSource {
        let mut number = numbers();
        let tensors = Tape::tensors(&CONFIG).map(|tensor| {
            let (rows, columns) = Tape::shape(&CONFIG, tensor);
            let floats = match tensor {
                Tensor::Norm(_) => vec![1.0; columns],
                _ => (0..rows * columns).map(|_| 0.3 * number()).collect(),
            };
            Stored { format: Format::F32, floats, values: Vec::new(), scales: Vec::new() }
        });
        TunedSource { config: CONFIG, name: None, vocabulary: None, tensors: tensors.collect() }
    }

    fn texts(count: usize) -> Vec<Vec<u32>> {
        let mut number = numbers();
        let text = |_| (0..CONFIG.seq_len).map(|_| (number() * 12.0 + 12.0) as u32).collect();
        (0..count).map(text).collect()
    }

    fn weights(source: &mut TunedSource) -> Tensors {
        Tape::tensors(&CONFIG).map(|tensor| read(source, tensor).unwrap()).collect()
    }

    /// Divergence per token on texts that were not tuned with.
    fn divergence(original: &mut TunedSource, found: &mut TunedSource) -> f64 {
        let rope = rope(&CONFIG);
        let [original, found] = [original, found].map(weights);
        let [teacher, student] = [&original, &found].map(|weights| Network::new(&CONFIG, weights, &rope));
        let texts = texts(60).split_off(40);
        let sum: f64 = texts.iter().map(|text| distil(&teacher, &student, text, &mut zeros(&found))).sum();
        sum / (texts.len() * CONFIG.seq_len) as f64
    }

    fn tuned(plan: &Plan, steps: usize) -> TunedSource {
        let tuning = Tuning { steps, batch: 8, ..Tuning::default() };
        tune(&mut model(), plan, &mut Rounding, &texts(40), tuning, &mut |_, _| ()).unwrap()
    }

    const Q4: Precision = Precision::Quantized(Quant::Q4);

    #[test]
    fn predictions_come_nearer_to_the_originals() {
        let plan = Plan::native(&CONFIG, Q4, Q4, Group::Columns(32)).unwrap();
        let [mut before, mut after] = [0, 80].map(|steps| tuned(&plan, steps));
        let [before, after] = [&mut before, &mut after].map(|found| divergence(&mut model(), found));
        assert!(after < 0.6 * before, "{after} after, {before} before");
    }

    #[test]
    fn tuning_is_the_same_each_time() {
        let plan = Plan::native(&CONFIG, Q4, Q4, Group::Columns(32)).unwrap();
        let [one, other] = [0, 1].map(|_| weights(&mut tuned(&plan, 5)));
        assert!(one == other && one != weights(&mut tuned(&plan, 4)));
    }

    /// Nothing is rounded again when the result is written.
    #[test]
    fn the_result_is_stored_as_planned() {
        let plan = Plan::native(&CONFIG, Q4, Precision::F32, Group::Columns(32)).unwrap();
        let mut found = tuned(&plan, 3);
        let w2 = Tensor::Matrix(Matrix::W2(1));
        let ends = [Tensor::Embedding, Tensor::Norm(Norm::Final), Tensor::Matrix(Matrix::Classifier)];
        assert_eq!(found.stored(w2), plan.format(w2));
        assert_eq!(ends.map(|tensor| found.stored(tensor)), [Format::F32; 3]);
        assert_eq!(read(&mut found, ends[0]).unwrap(), read(&mut model(), ends[0]).unwrap());
        assert_ne!(read(&mut found, ends[1]).unwrap(), vec![1.0; CONFIG.dim]);

        let (mut values, mut scales, mut floats) = (vec![0; 3 * 40], vec![0; 3 * 2], vec![0.0; 3 * 40]);
        found.read_integers(w2, 5, &mut values, &mut scales).unwrap();
        found.read(w2, 5, &mut floats).unwrap();
        for (i, &float) in floats.iter().enumerate() {
            let scale = half::f16::from_bits(scales[i / 40 * 2 + i % 40 / 32]).to_f32();
            assert!((-8..8).contains(&values[i]) && float == f32::from(values[i]) * scale);
        }
    }

    #[test]
    fn no_texts_are_refused() {
        let plan = Plan::native(&CONFIG, Q4, Q4, Group::Row).unwrap();
        for texts in [vec![], vec![vec![]]] {
            let tuning = Tuning::default();
            let result = tune(&mut model(), &plan, &mut Rounding, &texts, tuning, &mut |_, _| ());
            assert!(result.is_err_and(|error| error.to_string().contains("no texts")));
        }
        let foreign = [vec![1, 24]];
        let result = tune(&mut model(), &plan, &mut Rounding, &foreign, Tuning::default(), &mut |_, _| ());
        assert!(result.is_err_and(|error| error.to_string().contains("token 24")));
    }
}
