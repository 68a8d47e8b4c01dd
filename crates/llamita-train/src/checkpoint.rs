//! Everything that training needs to go on after it was stopped, in one file.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::model::write_atomically;
use crate::settings::Settings;

/// Where training is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// The settings it began with.
    pub settings: Settings,
    /// Steps that are done.
    pub step: usize,
    /// The lowest validation loss so far.
    pub best: Option<f64>,
    /// Validations since then.
    pub without_better: usize,
    /// Seconds of training so far.
    pub seconds: f64,
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

    /// Reads one; there is none before the first was written.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
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
            Ok(Self {
                progress,
                weights: all("weights", Dtype::F32)?.into_iter().map(floats).collect(),
                memory: all("memory", Dtype::U8)?.into_iter().map(<[u8]>::to_vec).collect(),
            })
        };
        read().map(Some).with_context(|| {
            format!(
                "{}: it is no checkpoint of this program: remove it, or choose another folder with -o",
                path.display()
            )
        })
    }
}
