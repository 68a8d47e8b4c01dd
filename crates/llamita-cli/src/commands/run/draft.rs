//! Guesses that make a pass over slow weights worth several tokens.

use std::path::PathBuf;

use llamita::draft::{Draft, DraftModel, Lookup};
use llamita::weights::Tape;
use llamita::{CacheFormat, Capacity, Config, Kernels, Resident, Solo, State, Weights, state_len};
use llamita_storage::Placement;

use crate::error::{Error, Result};
use crate::load::{self, File, LoadedModel};

/// Whether and how tokens are guessed.
#[derive(clap::Args)]
#[command(next_help_heading = "Drafts")]
pub struct Drafting {
    /// Let a smaller model with the same tokens guess what comes, or `lookup` guess it from the text so far
    ///
    /// One pass over the weights confirms several guesses at once. The text is the same with any draft and without, and
    /// where drafts do not pay they are left away by themselves: they do where weights come from slow storage.
    #[arg(long, value_name = "MODEL|lookup")]
    draft: Option<PathBuf>,

    /// How many tokens to guess at most for a pass, 1 to 16
    #[arg(long, value_name = "N", default_value_t = 4, requires = "draft",
        value_parser = clap::value_parser!(u8).range(1..=16))]
    draft_tokens: u8,
}

/// The longest text that a draft guesses from is the context; passes to catch up have so many tokens.
const BATCH: usize = 16;

impl Drafting {
    /// Tokens to guess at most.
    pub fn most(&self) -> usize {
        self.draft_tokens.into()
    }

    /// Rows of logits that a pass makes.
    pub fn logits(&self) -> usize {
        if self.draft.is_some() { self.most() + 1 } else { 1 }
    }

    /// A capacity with room for the guesses.
    pub fn capacity(&self, capacity: Capacity) -> Capacity {
        let logits = self.logits();
        Capacity { logits, batch: capacity.batch.max(logits), ..capacity }
    }

    fn looks_up(&self) -> bool {
        self.draft.as_ref().is_some_and(|draft| draft.as_os_str() == "lookup" && !draft.is_file())
    }

    /// The model that guesses, if one does.
    pub fn open(&self) -> Result<Option<File>> {
        let model = self.draft.as_ref().filter(|_| !self.looks_up());
        model.map(|path| File::open_model(path, Placement::Auto)).transpose()
    }

    /// What is needed to guess for a model.
    pub fn room<'f>(
        &self,
        file: Option<&'f File>,
        target: &LoadedModel<'_>,
        context: usize,
    ) -> Result<Option<Room<'f>>> {
        if self.draft.is_none() {
            return Ok(None);
        }
        let Some(file) = file else {
            return Ok(Some(Room { model: None, memory: Vec::new(), tokens: Vec::new() }));
        };
        let model = LoadedModel::read(file)?;
        if let (Some(found), Some(expected)) = (tokens(&model.header), tokens(&target.header))
            && found != expected
        {
            return Err(Error::usage(format_args!(
                "--draft {} has other tokens than the model, expected the same: use a draft that was trained with the \
                 model's tokenizer, or --draft lookup",
                file.path.display()
            )));
        }
        let capacity = capacity(model.config(), context);
        let memory = load::memory(model.config(), capacity)?;
        Ok(Some(Room { memory, tokens: vec![0; capacity.context + 1], model: Some(model) }))
    }
}

/// All tokens of a model, where its file has them.
fn tokens<'f>(model: &llamita::Model<'f>) -> Option<&'f [u8]> {
    model.vocabulary().ok().flatten().map(|vocabulary| vocabulary.tokens)
}

fn capacity(config: &Config, context: usize) -> Capacity {
    Capacity { context: context.min(config.seq_len), batch: BATCH, logits: 1, cache: CacheFormat::F32 }
}

/// A draft's model and memory.
pub struct Room<'f> {
    model: Option<LoadedModel<'f>>,
    memory: Vec<f32>,
    tokens: Vec<u32>,
}

impl Room<'_> {
    /// Bytes of its weights and its memory.
    pub fn bytes(&self) -> Result<u64> {
        let Some(model) = &self.model else { return Ok(0) };
        Ok(model.file.len() + 4 * (self.memory.len() + self.tokens.len()) as u64)
    }

    /// The draft, for a target of this shape; its weights may be wrapped in others.
    pub fn draft<'a, W: Weights + 'a>(
        &'a mut self,
        target: &Config,
        wrap: impl FnOnce(Resident<'a>, Tape<'a>) -> W,
    ) -> Result<Box<dyn Draft + 'a>> {
        let Some(model) = &self.model else { return Ok(Box::new(Lookup::default())) };
        let config = model.config();
        let capacity = capacity(config, self.tokens.len() - 1);
        debug_assert_eq!(state_len(config, capacity), Ok(self.memory.len()));
        let state = State::new(config, capacity, &mut self.memory)?;
        let weights = wrap(model.weights()?, model.tape()?);
        let engine = llamita::Engine::new(weights, state, Solo, Kernels::detect());
        let draft = DraftModel::new(engine, &mut self.tokens, target);
        Ok(Box::new(draft.map_err(|error| Error::usage(format_args!("--draft: {error}")))?))
    }
}
