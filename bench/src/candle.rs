//! The peer: candle's quantized llama.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;

use crate::compare::Model;

/// A model as candle computes it.
pub struct Candle {
    weights: ModelWeights,
    vocab_size: usize,
    bytes_per_token: usize,
}

/// candle takes its number of threads from the environment, once.
pub fn require_one_thread() -> Result<()> {
    let pool = std::env::var("CANDLE_NUM_THREADS").ok();
    ensure!(
        candle_core::utils::get_num_threads() == 1 && pool.as_deref().is_none_or(|threads| threads == "1"),
        "candle would use {} threads, expected 1: run this in its own folder, or set RAYON_NUM_THREADS and \
         CANDLE_NUM_THREADS to 1",
        pool.unwrap_or_else(|| candle_core::utils::get_num_threads().to_string()),
    );
    Ok(())
}

impl Candle {
    /// Reads an ordinary GGUF.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || -> Result<Self> {
            let mut file = BufReader::new(File::open(path)?);
            let content = Content::read(&mut file)?;
            let embedding = content.tensor_infos.get("token_embd.weight");
            let embedding = embedding.context("the file has no tensor token_embd.weight")?;
            let vocab_size = *embedding.shape.dims().first().context("an embedding without rows")?;
            let bytes = |info: &candle_core::quantized::gguf_file::TensorInfo| {
                info.shape.elem_count() / info.ggml_dtype.block_size() * info.ggml_dtype.type_size()
            };
            // Of an embedding that is not the classifier as well, only a row is read.
            let separate = content.tensor_infos.contains_key("output.weight");
            let unread = if separate { bytes(embedding) / vocab_size * (vocab_size - 1) } else { 0 };
            let bytes_per_token = content.tensor_infos.values().map(bytes).sum::<usize>() - unread;
            let weights = ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
            Ok(Self { weights, vocab_size, bytes_per_token })
        };
        open().with_context(|| format!("candle cannot read {}", path.display()))
    }
}

impl Model for Candle {
    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn bytes_per_token(&self) -> usize {
        self.bytes_per_token
    }

    fn forward(&mut self, tokens: &[u32], position: usize, out: Option<&mut Vec<f32>>) -> Result<()> {
        let tokens = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = self.weights.forward(&tokens, position)?;
        if let Some(out) = out {
            *out = logits.squeeze(0)?.to_vec1()?;
        }
        Ok(())
    }
}
