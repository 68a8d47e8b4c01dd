//! Reading a folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use llamita::weights::{Format, Matrix, Tensor};
use llamita::{Config, Tape};
use serde::Deserialize;
use serde_json::Value;

use super::config;
use super::safetensors::{self, Place};
use crate::error::{Error, Result};
use crate::rope::to_half_split;
use crate::source::{Source, check_rows, decode};
use crate::vocabulary::{self, Vocabulary, chat_template, from_sentencepiece, from_tokenizer_json};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A model of Hugging Face, whose weights are read where they are asked for.
pub struct Folder {
    config: Config,
    name: Option<String>,
    vocabulary: Option<Vocabulary>,
    files: Vec<(PathBuf, File)>,
    /// File, format and first byte of each tensor, in tape order.
    entries: Vec<(usize, Format, u64)>,
    bytes: Vec<u8>,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Folder {
    /// Opens the model in a folder: `config.json`, `model.safetensors` or the parts that
    /// `model.safetensors.index.json` names, and `tokenizer.model` or `tokenizer.json` where there is one,
    /// unless another tokenizer is named.
    pub fn open(folder: &Path, tokenizer: Option<&Path>) -> Result<Self> {
        let path = folder.join("config.json");
        let parsed =
            read_file(&path).and_then(|json| config::parse(&json).map_err(|error| error.at(&path)))?;
        let config = parsed.config;
        let Weights { files, places } = weights(folder)?;
        let entries = entries(&config, &places).map_err(|error| error.at(folder))?;
        let mut vocabulary = match tokenizer {
            Some(path) => Some(vocabulary::read_file(path, config.vocab_size)?),
            None => in_folder(folder)?,
        };
        if let Some(vocabulary) = &mut vocabulary {
            vocabulary.bos = vocabulary.bos.or(parsed.bos);
            vocabulary.eos = vocabulary.eos.or(parsed.eos);
            vocabulary.fill(config.vocab_size).map_err(|error| error.at(folder))?;
        }
        let name = fs::canonicalize(folder).ok();
        let name = name.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        Ok(Self { config, name, vocabulary, files, entries, bytes: Vec::new() })
    }

    /// Reads numbers as they lie in the file, from the begin of a row on.
    fn fetch(&mut self, tensor: Tensor, row: usize, columns: usize, out: &mut [f32]) -> Result<()> {
        let (index, format, offset) = self.entries[Tape::index(&self.config, tensor)];
        let (path, file) = &mut self.files[index];
        self.bytes.resize(format.bytes(1, out.len()) as usize, 0);
        file.seek(SeekFrom::Start(offset + format.bytes(row, columns)))
            .and_then(|_| file.read_exact(&mut self.bytes))
            .map_err(|error| Error::Read(error).at(path))?;
        match format {
            Format::F16 => decode(&self.bytes, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Format::Bf16 => decode(&self.bytes, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            _ => decode(&self.bytes, out, f32::from_le_bytes),
        }
        Ok(())
    }
}

impl Source for Folder {
    fn config(&self) -> &Config {
        &self.config
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.as_ref()
    }

    fn rope_tables(&self) -> Option<&[u8]> {
        None
    }

    fn stored(&self, tensor: Tensor) -> Format {
        self.entries[Tape::index(&self.config, tensor)].1
    }

    fn read(&mut self, tensor: Tensor, first_row: usize, out: &mut [f32]) -> Result<()> {
        let columns = check_rows(&self.config, tensor, first_row, out.len());
        if !super::has_heads(tensor) {
            return self.fetch(tensor, first_row, columns, out);
        }
        for (row, out) in (first_row..).zip(out.chunks_exact_mut(columns)) {
            self.fetch(tensor, to_half_split(row, self.config.head_size), columns, out)?;
        }
        Ok(())
    }

    fn read_integers(&mut self, _: Tensor, _: usize, _: &mut [i8], _: &mut [u16]) -> Result<()> {
        panic!("safetensors have no integers")
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Error::Read(error).at(path))
}

/// The content of a file that may be missing.
fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    if path.exists() { read_file(path).map(Some) } else { Ok(None) }
}

/// The files with weights, and in which of them each tensor is.
struct Weights {
    files: Vec<(PathBuf, File)>,
    places: BTreeMap<String, (usize, Place)>,
}

fn weights(folder: &Path) -> Result<Weights> {
    let index = folder.join(INDEX);
    let names = match read_if_there(&index)? {
        Some(json) => parts(&json).map_err(|error| error.at(&index))?,
        None if folder.join(SINGLE).exists() => vec![SINGLE.to_owned()],
        None => {
            let error = format!(
                "there is neither {SINGLE} nor {INDEX}: choose a model with safetensors, \
                 or save it as such with `save_pretrained`"
            );
            return Err(Error::Refused(error).at(folder));
        }
    };
    let (mut files, mut places) = (Vec::new(), BTreeMap::new());
    for name in names {
        let path = folder.join(name);
        let (file, tensors) = safetensors::open(&path)?;
        for (name, place) in tensors {
            if places.contains_key(&name) {
                let error = format!("tensor {name} is in another file, too: download the model again");
                return Err(Error::Refused(error).at(&path));
            }
            places.insert(name, (files.len(), place));
        }
        files.push((path, file));
    }
    Ok(Weights { files, places })
}

/// The files that an index names, each once.
fn parts(json: &[u8]) -> Result<Vec<String>> {
    let damaged = |what: String| Error::refused(format_args!("{what}: copy or download the file again"));
    let index: Index =
        serde_json::from_slice(json).map_err(|error| damaged(format!("it is not as expected ({error})")))?;
    let mut names: Vec<_> = index.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    // What is named lies in the same folder.
    match names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        Some(name) => Err(damaged(format!("it names \"{name}\", expected a file in this folder"))),
        None => Ok(names),
    }
}

/// Tensors of no use: rope's frequencies follow from the config.
fn is_ignored(config: &Config, name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
        || config.shared_classifier && name == super::name(Tensor::Matrix(Matrix::Classifier))
}

/// Finds the tensors of the tape, which must be there, of their shape, and all.
fn entries(config: &Config, places: &BTreeMap<String, (usize, Place)>) -> Result<Vec<(usize, Format, u64)>> {
    let mut entries = Vec::new();
    for tensor in Tape::tensors(config) {
        let shared = config.shared_classifier && tensor == Tensor::Matrix(Matrix::Classifier);
        let name = super::name(if shared { Tensor::Embedding } else { tensor });
        let Some((file, place)) = places.get(&name) else {
            return Err(Error::refused(format_args!(
                "tensor {name} is missing: the model is not complete, or of a variant of Llama that is not \
                 supported"
            )));
        };
        let (rows, columns) = Tape::shape(config, tensor);
        let expected = match tensor {
            Tensor::Norm(_) => vec![columns as u64],
            _ => vec![rows as u64, columns as u64],
        };
        if place.shape != expected {
            return Err(Error::refused(format_args!(
                "tensor {name} is {:?}, expected {expected:?} from config.json: \
                 the model is damaged, or of a variant of Llama that is not supported",
                place.shape
            )));
        }
        let format = place.format.clone().map_err(|found| {
            Error::refused(format_args!(
                "tensor {name} is {found}, supported are F32, F16 and BF16: get the model in one of these"
            ))
        })?;
        entries.push((*file, format, place.offset));
    }
    let known: Vec<_> = Tape::tensors(config).map(super::name).collect();
    let others = places.keys().filter(|name| !is_ignored(config, name));
    if let Some(other) = others.into_iter().find(|name| !known.contains(name)) {
        return Err(Error::refused(format_args!(
            "tensor {other} is not supported, and ignoring it would compute a different model: \
             choose a plain Llama model"
        )));
    }
    Ok(entries)
}

/// The tokenizer in a folder, if there is one. Where there are both kinds, that of SentencePiece has the
/// scores that the other lacks.
fn in_folder(folder: &Path) -> Result<Option<Vocabulary>> {
    let settings = read_if_there(&folder.join("tokenizer_config.json"))?;
    let path = folder.join("tokenizer.model");
    if let Some(model) = read_if_there(&path)? {
        let mut vocabulary = from_sentencepiece(&model).map_err(|error| error.at(&path))?;
        let settings =
            settings.and_then(|json| serde_json::from_slice::<Value>(&json).ok()).unwrap_or_default();
        if vocabulary.chat_template.is_none() {
            vocabulary.chat_template = chat_template(&settings);
        }
        if let Some(add_bos) = settings.get("add_bos_token").and_then(Value::as_bool) {
            vocabulary.add_bos = add_bos;
        }
        return Ok(Some(vocabulary));
    }
    let path = folder.join("tokenizer.json");
    let Some(json) = read_if_there(&path)? else { return Ok(None) };
    from_tokenizer_json(&json, settings.as_deref()).map(Some).map_err(|error| error.at(&path))
}
