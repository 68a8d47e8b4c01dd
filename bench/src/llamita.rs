//! llamita, as its program uses it.

use std::path::Path;

use anyhow::{Context, Result};
use llamita::weights::{Entry, Tensor};
use llamita::{CacheFormat, Capacity, Engine, Kernels, Resident, Solo, State, Tape, state_len};
use llamita_storage::ModelFile;

use crate::compare::Model;

/// A model as llamita computes it.
pub struct Llamita<'a> {
    engine: Engine<'a, Resident<'a>, Solo>,
    batch: usize,
    bytes_per_token: usize,
}

/// Opens a model file, in the memory that the program would choose.
pub fn open(path: &Path) -> Result<ModelFile> {
    Ok(ModelFile::open(path)?)
}

impl<'a> Llamita<'a> {
    /// An engine for texts of `context` tokens, `batch` of them in a pass.
    pub fn new(file: &'a ModelFile, context: usize, batch: usize) -> Result<Self> {
        let header = llamita::Model::read(file.bytes()).context("llamita cannot read the model")?;
        let config = *header.config();
        // The engine borrows what it is lent; it lives as long as the program.
        let entries: &mut [Entry] = Vec::leak(vec![Entry::EMPTY; Tape::len(&config)]);
        let tape = header.tape(entries)?;

        let tensors = Tape::tensors(&config).filter(|&tensor| tensor != Tensor::Embedding);
        let row = tape.bytes(Tensor::Embedding) / config.vocab_size as u64;
        // A shared embedding is the classifier, which has been counted.
        let embedding = if config.shared_classifier { 0 } else { row };
        let bytes_per_token = (tensors.map(|tensor| tape.bytes(tensor)).sum::<u64>() + embedding) as usize;

        let capacity = Capacity { context, batch, logits: 1, cache: CacheFormat::F32 };
        let memory: &mut [f32] = Vec::leak(vec![0.0; state_len(&config, capacity)?]);
        let state = State::new(&config, capacity, memory)?;
        let engine = Engine::new(Resident::new(tape, file.bytes())?, state, Solo, Kernels::detect());
        Ok(Self { engine, batch, bytes_per_token })
    }
}

impl Model for Llamita<'_> {
    fn vocab_size(&self) -> usize {
        self.engine.config().vocab_size
    }

    fn bytes_per_token(&self) -> usize {
        self.bytes_per_token
    }

    fn forward(&mut self, tokens: &[u32], position: usize, out: Option<&mut Vec<f32>>) -> Result<()> {
        let (before, last) = tokens.split_at((tokens.len() - 1) / self.batch * self.batch);
        for (pass, tokens) in before.chunks(self.batch).enumerate() {
            self.engine.forward(tokens, position + pass * self.batch, 0)?;
        }
        let logits = self.engine.forward(last, position + before.len(), 1)?;
        if let Some(out) = out {
            out.clear();
            out.extend_from_slice(logits);
        }
        Ok(())
    }
}
