//! Everything that training needs to go on after it was stopped, in one file.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::model::write_atomically;
use crate::network;
use crate::parameters::SHARDS;
use crate::settings::Settings;

/// What is trained with, as far as it is checked when training goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Tokens of the texts.
    pub text: usize,
    /// Tokens of the texts that are left away later.
    pub extra: usize,
    /// Tokens of the validation text.
    pub validation: usize,
    /// Whether there is a teacher.
    pub teacher: bool,
}

/// Where training is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// The settings it began with.
    pub settings: Settings,
    /// The texts it began with.
    pub facts: Facts,
    /// Steps that are done.
    pub step: usize,
    /// The lowest validation loss so far.
    pub best: Option<f64>,
    /// Validations since then.
    pub without_better: usize,
    /// Seconds of training so far.
    pub seconds: f64,
}

impl Progress {
    /// The beginning.
    pub const fn new(settings: Settings, facts: Facts) -> Self {
        Self { settings, facts, step: 0, best: None, without_better: 0, seconds: 0.0 }
    }
}

/// A state of the training.
pub struct Checkpoint {
    /// Where it is.
    pub progress: Progress,
    /// The weights in tape order.
    pub weights: Vec<Vec<f32>>,
    /// What the optimizers remember.
    pub memory: Vec<Vec<u8>>,
}

/// The key of the progress among the file's metadata.
const PROGRESS: &str = "llamita.progress";

impl Checkpoint {
    /// Writes it, in place of the one before.
    pub fn write(&self, path: &Path) -> Result<()> {
        let floats: Vec<Vec<u8>> = self
            .weights
            .iter()
            .map(|values| values.iter().flat_map(|value| value.to_le_bytes()).collect())
            .collect();
        let mut tensors = Vec::new();
        for (place, bytes) in floats.iter().enumerate() {
            tensors.push((
                format!("weights.{place}"),
                TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes)?,
            ));
        }
        for (shard, bytes) in self.memory.iter().enumerate() {
            tensors.push((format!("memory.{shard}"), TensorView::new(Dtype::U8, vec![bytes.len()], bytes)?));
        }
        let progress = HashMap::from([(PROGRESS.to_owned(), serde_json::to_string(&self.progress)?)]);
        let bytes = safetensors::serialize(tensors, Some(progress))?;
        write_atomically(path, |file| Ok(file.write_all(&bytes)?))
    }

    /// Refuses weights of another shape than the settings say, and a begun training without a memory.
    fn check(&self) -> Result<()> {
        let config = self.progress.settings.model.config()?;
        let lens = self.weights.iter().map(Vec::len);
        ensure!(network::sizes(&config).eq(lens), "its weights are not those of its settings");
        ensure!(
            self.memory.len() == SHARDS,
            "it has {} memories of optimizers, expected {SHARDS}",
            self.memory.len()
        );
        Ok(())
    }

    /// Reads one; there is none before the first was written.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            // Where there is no such folder, that will be said when it is made.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("{}: cannot be read", path.display())),
        };
        let read = || -> Result<Self> {
            let (_, header) = SafeTensors::read_metadata(&bytes)?;
            let progress = header.metadata().as_ref().and_then(|metadata| metadata.get(PROGRESS));
            let progress = serde_json::from_str(progress.context("it has no progress")?)?;
            let file = SafeTensors::deserialize(&bytes)?;
            let all = |name: &str, dtype| -> Result<Vec<&[u8]>> {
                let mut found = Vec::new();
                while let Ok(tensor) = file.tensor(&format!("{name}.{}", found.len())) {
                    ensure!(tensor.dtype() == dtype, "{name} is of another type");
                    found.push(tensor.data());
                }
                Ok(found)
            };
            let floats = |bytes: &[u8]| {
                bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
            };
            let checkpoint = Self {
                progress,
                weights: all("weights", Dtype::F32)?.into_iter().map(floats).collect(),
                memory: all("memory", Dtype::U8)?.into_iter().map(<[u8]>::to_vec).collect(),
            };
            checkpoint.check()?;
            Ok(checkpoint)
        };
        read().map(Some).with_context(|| {
            format!(
                "{}: it is no checkpoint of this program: remove it, or choose another folder with -o",
                path.display()
            )
        })
    }
}
