//! Writing a model's files.

use std::io::{Seek, SeekFrom, Write};

use llamita::weights::{Format, Tensor};
use llamita::{Config, Tape};
use serde_json::{Map, Value, json};

use crate::conversion::Conversion;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::rope::from_half_split;
use crate::source::{Source, check_rows};
use crate::vocabulary::Vocabulary;

/// `config.json` for a model whose weights are in this format: F32, F16 or BF16.
pub fn config_json(config: &Config, vocabulary: Option<&Vocabulary>, format: Format) -> String {
    let dtype = match format {
        Format::F16 => "float16",
        Format::Bf16 => "bfloat16",
        _ => "float32",
    };
    // An f32 as JSON would have it with the digits of an f64.
    let number = |number: f32| number.to_string().parse::<f64>().unwrap_or(number.into());
    let json = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_size,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.seq_len,
        "rms_norm_eps": number(config.norm_eps),
        "rope_theta": number(config.rope_theta),
        "rope_scaling": null,
        "tie_word_embeddings": config.shared_classifier,
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "bos_token_id": vocabulary.and_then(|vocabulary| vocabulary.bos),
        "eos_token_id": vocabulary.and_then(|vocabulary| vocabulary.eos),
        "torch_dtype": dtype,
    });
    format!("{json:#}\n")
}

/// Writes the weights as safetensors; `plan` has floats only.
pub fn write_safetensors(
    conversion: &mut Conversion<'_>,
    plan: &Plan,
    out: &mut (impl Write + Seek),
) -> Result<()> {
    let config = *plan.config();
    let (mut entries, mut end) = (Map::new(), 0);
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut tensors = Vec::new();
    for (tensor, format) in plan.tensors() {
        let (rows, columns) = Tape::shape(&config, tensor);
        let shape = if let Tensor::Norm(_) = tensor { json!([columns]) } else { json!([rows, columns]) };
        let dtype = format.to_string();
        let start = end;
        end += format.bytes(rows, columns);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        entries.insert(super::name(tensor), entry);
        tensors.push((tensor, format, start));
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    // The data begin at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    let len = (header.len() as u64).to_le_bytes();
    out.seek(SeekFrom::Start(0))
        .and_then(|_| out.write_all(&len))
        .and_then(|()| out.write_all(&header))
        .map_err(Error::Write)?;
    let data = (len.len() + header.len()) as u64;
    let mut source = HalfSplit(conversion.source);
    let mut conversion =
        Conversion { source: &mut source, quantizer: conversion.quantizer, progress: conversion.progress };
    for (tensor, format, start) in tensors {
        conversion.write(tensor, format, data + start, out)?;
    }
    out.flush().map_err(Error::Write)
}

/// A model whose heads have their rows in the order of Hugging Face.
struct HalfSplit<'a>(&'a mut dyn Source);

impl Source for HalfSplit<'_> {
    fn config(&self) -> &Config {
        self.0.config()
    }

    fn name(&self) -> Option<&str> {
        self.0.name()
    }

    fn vocabulary(&self) -> Option<&Vocabulary> {
        self.0.vocabulary()
    }

    fn rope_tables(&self) -> Option<&[u8]> {
        self.0.rope_tables()
    }

    fn stored(&self, tensor: Tensor) -> Format {
        self.0.stored(tensor)
    }

    fn read(&mut self, tensor: Tensor, first_row: usize, out: &mut [f32]) -> Result<()> {
        let columns = check_rows(self.0.config(), tensor, first_row, out.len());
        if !super::has_heads(tensor) {
            return self.0.read(tensor, first_row, out);
        }
        let head_size = self.0.config().head_size;
        for (row, out) in (first_row..).zip(out.chunks_exact_mut(columns)) {
            self.0.read(tensor, from_half_split(row, head_size), out)?;
        }
        Ok(())
    }

    fn read_integers(&mut self, _: Tensor, _: usize, _: &mut [i8], _: &mut [u16]) -> Result<()> {
        panic!("safetensors are written as floats")
    }
}
