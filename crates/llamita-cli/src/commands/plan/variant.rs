//! A model in other formats and with fewer tokens, as far as a plan needs to know it.

use llamita::weights::{Entry, Format, Pass, Tape, Tensor};
use llamita::{CacheFormat, Capacity, Config};
use llamita_convert::Plan as Formats;
use llamita_convert::plan::{Group, Precision};
use llamita_kernels::quantized::Quant;
use llamita_storage::{Board, Costs, Plan, PlanError, Time, predict};

use crate::error::{Error, Result};
use crate::load::LoadedModel;
use crate::places::{self, Wanted};
use crate::vocabulary::Vocabulary;

/// A model that there is or could be.
pub struct Variant {
    /// What it is called.
    pub name: String,
    /// How it is made, as arguments of `llamita convert`.
    pub convert: String,
    /// Its shape.
    pub config: Config,
    entries: Vec<Entry>,
    /// Bytes of its file.
    pub file: u64,
    /// Bytes in memory beside weights, state and text.
    other: u64,
    /// Bytes of these that the header has.
    header: u64,
}

/// How a variant would run.
pub struct Outcome {
    /// What the plan is for.
    pub capacity: Capacity,
    /// Where everything is.
    pub plan: Plan,
    /// What a token takes in the middle of the context.
    pub token: Time,
    /// What a prompt takes, from the start.
    pub prompt: Time,
    /// Tokens of that prompt.
    pub prompt_tokens: usize,
    /// What a pass takes that confirms four guesses.
    pub guessed: Time,
}

/// How a model is to be used.
#[derive(Clone, Copy)]
pub struct Use {
    /// Longest text.
    pub context: usize,
    /// How keys and values are kept.
    pub cache: CacheFormat,
    /// Whether memory-mapped flash may hold the file.
    pub in_place: bool,
    /// Tokens of the prompt that is planned for.
    pub prompt: usize,
}

/// Tokens of a vocabulary that would do for stories.
const FEW_TOKENS: usize = 4096;

impl Variant {
    /// The model as it is stored.
    pub fn stored(model: &LoadedModel<'_>, tokenizer: Option<&Vocabulary<'_>>) -> Result<Self> {
        let (tape, config) = (model.tape()?, *model.config());
        let entries = Tape::tensors(&config).map(|tensor| tape.entry(tensor)).collect();
        let (body, head) = (Tensor::Matrix(llamita::weights::Matrix::Wq(0)), Tensor::Embedding);
        let [body, head] = [body, head].map(|tensor| tape.entry(tensor).format.to_string());
        let name = if body == head { body } else { format!("{body}, head {head}") };
        let (file, other) = (model.file.stored_len(), places::other_bytes(model, tokenizer));
        let (convert, header) = (String::new(), model.header.header_len());
        Ok(Self { name: format!("as it is: {name}"), convert, config, entries, file, other, header })
    }

    /// The same model in each format that `llamita convert` writes, and with fewer tokens where it has many.
    pub fn all(model: &LoadedModel<'_>, tokenizer: Option<&Vocabulary<'_>>) -> Result<Vec<Self>> {
        const Q8: Precision = Precision::Quantized(Quant::Q8);
        const Q4: Precision = Precision::Quantized(Quant::Q4);
        let formats = [
            ("f32", "--quant f32", Precision::F32, Precision::F32),
            ("q8", "--quant q8", Q8, Q8),
            ("q4, head q8", "--body q4 --head q8", Q4, Q8),
            ("q4", "--quant q4", Q4, Q4),
        ];
        let all = *model.config();
        let mut variants = vec![Self::stored(model, tokenizer)?];
        let mut vocabularies = vec![all.vocab_size];
        vocabularies.extend((all.vocab_size >= 2 * FEW_TOKENS).then_some(FEW_TOKENS));
        for vocab_size in vocabularies {
            let config = Config { vocab_size, ..all };
            let pruned = vocab_size < all.vocab_size;
            let (tokens, prune) = if pruned {
                (format!(", {vocab_size} tokens"), format!(" --prune-vocab TEXT --keep {vocab_size}"))
            } else {
                Default::default()
            };
            for (name, convert, body, head) in formats {
                // Rows may be too long for integers.
                let Ok(plan) = Formats::native(&config, body, head, Group::Columns(32)) else { continue };
                // The vocabulary is most of the header, and the tokenizer's index goes with it.
                let share = vocab_size as f64 / all.vocab_size as f64;
                let apart = tokenizer.map_or(0, Vocabulary::file_bytes);
                let [inside, header] = [model.header.header_len(), model.header.header_len() + apart]
                    .map(|bytes| (bytes as f64 * share) as u64);
                let other = (places::other_bytes(model, tokenizer) as f64 * share) as u64;
                let (entries, file) = lay_out(&config, header, |tensor| plan.format(tensor));
                let formats =
                    |entries: &[Entry]| entries.iter().map(|entry| entry.format).collect::<Vec<_>>();
                if !pruned && formats(&entries) == formats(&variants[0].entries) {
                    continue;
                }
                let (name, convert) = (format!("{name}{tokens}"), format!("{convert}{prune}"));
                variants.push(Self { name, convert, config, entries, file, other, header: inside });
            }
        }
        Ok(variants)
    }

    /// Its tensors.
    pub fn tape(&self) -> Result<Tape<'_>> {
        Tape::new(self.config, &self.entries).map_err(Error::failure)
    }

    /// Places it on a board and says what that gives; the inner error is that of the plan.
    pub fn on(&self, board: &Board<'_>, how: Use) -> Result<std::result::Result<Outcome, PlanError>> {
        let (tape, other) = (self.tape()?, self.other + places::text_bytes(how.context));
        let Use { context, cache, in_place, .. } = how;
        let Self { file, header, .. } = *self;
        let wanted = Wanted { tape, file, other, header, context, cache, logits: 1, in_place, pin: true };
        let (capacity, plan) = match places::plan(&wanted, board)? {
            Ok(placed) => placed,
            Err(error) => return Ok(Err(error)),
        };
        let costs =
            Costs { board: *board, config: self.config, cache: how.cache, cache_memory: plan.cache_in };
        let pass = |position, batch| Pass { position, batch, logits: 1 };
        let prompt_tokens = how.prompt.min(how.context);
        // As many passes as it takes, alike; that all but the last need no logits is left aside.
        let passes = prompt_tokens.div_ceil(capacity.batch);
        let prompt =
            predict(&plan, tape, &costs, pass(0, prompt_tokens.div_ceil(passes))).times(passes as f64);
        // Four guesses in a pass.
        let guessed = Pass { position: how.context / 2, batch: 5, logits: 5 };
        let guessed = predict(&plan, tape, &costs, guessed);
        Ok(Ok(Outcome {
            capacity,
            plan,
            token: predict(&plan, tape, &costs, pass(how.context / 2, 1)),
            prompt,
            prompt_tokens,
            guessed,
        }))
    }
}

/// Tensors one after another at multiples of 64 bytes, as in a file of `llamita convert`.
fn lay_out(config: &Config, header: u64, format: impl Fn(Tensor) -> Format) -> (Vec<Entry>, u64) {
    let mut end = header.next_multiple_of(64);
    let mut entries: Vec<Entry> = Vec::new();
    for tensor in Tape::tensors(config) {
        if tensor == Tensor::Matrix(llamita::weights::Matrix::Classifier) && config.shared_classifier {
            entries.push(entries[0]);
            continue;
        }
        let (rows, columns) = Tape::shape(config, tensor);
        let format = format(tensor);
        entries.push(Entry { offset: end, format, ..Entry::EMPTY });
        end = (end + format.bytes(rows, columns)).next_multiple_of(64);
    }
    (entries, end)
}
