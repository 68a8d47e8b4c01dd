//! The tokenizer that belongs to a model: in its file, named by the user, or found beside it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use llamita::tokenizer::{GgufVocabulary, TokenizerError, Work};
use llamita::{Model, Tokenizer, Utf8Stream};
use llamita_storage::Placement;

use crate::error::{Error, Result};
use crate::load::{File, LoadedModel};

/// The tokens of a model, and room for their index.
pub struct Vocabulary<'f> {
    source: Source<'f>,
    vocab_size: usize,
    index: Vec<u32>,
}

enum Source<'f> {
    /// In the model's own file.
    Model(&'f File, GgufVocabulary<'f>),
    /// In a tokenizer.bin.
    File(File),
}

impl<'f> Vocabulary<'f> {
    /// The vocabulary in the file that the user named, or else in the model's, or else in one beside it.
    pub fn find(model: &LoadedModel<'f>, named: Option<&Path>) -> Result<Self> {
        let vocab_size = model.config().vocab_size;
        let found = |source| {
            let index_len = match &source {
                Source::Model(_, vocabulary) => vocabulary.index_len(),
                Source::File(_) => Tokenizer::index_len(vocab_size),
            };
            Self { source, vocab_size, index: vec![0; index_len] }
        };
        if let Some(path) = named {
            let file = File::open(path, Placement::Mapped)?;
            check_fit(&file, vocab_size)?;
            return Ok(found(Source::File(file)));
        }
        let inside = model.header.vocabulary().map_err(|error| Error::file(&model.file.path, error))?;
        if let Some(vocabulary) = inside {
            return Ok(found(Source::Model(model.file, vocabulary)));
        }
        beside(&model.file.path, vocab_size).map(|file| found(Source::File(file)))
    }

    /// The vocabulary in the model's file, or else in the file that the user named.
    pub fn find_or(model: &LoadedModel<'f>, named: &Path) -> Result<Self> {
        let inside = model.header.vocabulary().map_err(|error| Error::file(&model.file.path, error))?;
        Self::find(model, if inside.is_some() { None } else { Some(named) })
    }

    /// The file that the vocabulary is in.
    pub fn path(&self) -> &Path {
        match &self.source {
            Source::Model(file, _) => &file.path,
            Source::File(file) => &file.path,
        }
    }

    /// Bytes of its own file, if it has one.
    pub fn file_bytes(&self) -> u64 {
        match &self.source {
            Source::Model(..) => 0,
            Source::File(file) => file.len(),
        }
    }

    /// Bytes of its index.
    pub fn index_bytes(&self) -> u64 {
        4 * self.index.len() as u64
    }

    /// The tokenizer.
    pub fn tokenizer(&mut self) -> Result<Tokenizer<'_>> {
        let Self { source, vocab_size, index } = self;
        let (path, tokenizer) = match source {
            Source::Model(file, vocabulary) => (&file.path, Tokenizer::from_gguf(vocabulary, index)),
            Source::File(file) => (&file.path, Tokenizer::from_bin(file.content.bytes(), *vocab_size, index)),
        };
        let tokenizer = tokenizer.map_err(|error| Error::file(path, remedy(error)))?;
        if tokenizer.vocab_size() != *vocab_size {
            let (found, expected) = (tokenizer.vocab_size(), *vocab_size);
            return Err(Error::file(path, remedy(TokenizerError::VocabSize { found, expected })));
        }
        Ok(tokenizer)
    }
}

/// Bytes of the index of a model's vocabulary, wherever that is.
pub fn index_bytes(model: &Model<'_>) -> u64 {
    let inside = model.vocabulary().ok().flatten().map(|vocabulary| vocabulary.index_len());
    4 * inside.unwrap_or_else(|| Tokenizer::index_len(model.config().vocab_size)) as u64
}

/// A text's tokens, BOS first where the vocabulary has it so; without any text BOS, whatever it has.
pub fn encode(tokenizer: &Tokenizer<'_>, text: &str) -> Result<Vec<u32>> {
    let mut scratch = vec![Work::EMPTY; Tokenizer::scratch_len(text.len())];
    let mut tokens = vec![0; Tokenizer::max_tokens(text.len())];
    let count = tokenizer.encode(text, &mut scratch, &mut tokens).map_err(Error::failure)?;
    tokens.truncate(count);
    // A model can only continue.
    if tokens.is_empty() {
        tokens.push(tokenizer.bos());
    }
    Ok(tokens)
}

/// A text that grows by tokens.
#[derive(Default)]
pub struct Text {
    text: String,
    stream: Utf8Stream,
}

impl Text {
    /// Adds the text of a token where it follows another, and returns what is new and whole.
    pub fn push(&mut self, tokenizer: &Tokenizer<'_>, previous: u32, token: u32) -> &str {
        let old = self.text.len();
        for bytes in tokenizer.decode(previous, token) {
            self.stream.push(bytes, |part| self.text.push_str(part));
        }
        &self.text[old..]
    }

    /// Ends the text, and returns what is new with that.
    pub fn finish(&mut self) -> &str {
        let old = self.text.len();
        self.stream.finish(|part| self.text.push_str(part));
        &self.text[old..]
    }

    /// The text so far, as far as it is whole.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// All of the text.
    pub fn into_string(self) -> String {
        self.text
    }
}

fn check_fit(file: &File, expected: usize) -> Result<()> {
    let refuse = |error| Error::file(&file.path, remedy(error));
    match Tokenizer::count_bin(file.content.bytes()).map_err(refuse)? {
        found if found == expected => Ok(()),
        found => Err(refuse(TokenizerError::VocabSize { found, expected })),
    }
}

/// What a tokenizer was refused for, and what to do about it.
fn remedy(error: TokenizerError) -> String {
    let remedy = match error {
        TokenizerError::VocabSize { .. } => "name the one that the model was trained with by --tokenizer",
        _ => "the file is damaged or no tokenizer in llama2.c's format, copy or download it again",
    };
    format!("{error}: {remedy}")
}

/// The tokenizer beside a model that has as many tokens as the model: of `tokenizer.bin` and `tok*.bin` in
/// the order of their names, the first that fits.
pub fn beside(model: &Path, vocab_size: usize) -> Result<File> {
    let folder = match model.parent() {
        Some(folder) if folder != "" => folder,
        _ => Path::new("."),
    };
    let is_candidate = |path: &PathBuf| {
        let name = path.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
        name.starts_with(b"tok") && name.ends_with(b".bin") && path.file_name() != model.file_name()
    };
    // A folder that cannot be listed has nothing to offer.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut candidates: Vec<_> = entries.map(|entry| entry.path()).filter(is_candidate).collect();
    candidates.sort_by_key(|path| (!path.ends_with("tokenizer.bin"), path.clone()));

    let mut seen = Vec::new();
    for path in candidates {
        let file = File::open(&path, Placement::Mapped);
        let count = file.as_ref().ok().map(|file| Tokenizer::count_bin(file.content.bytes()));
        let verdict = match (file, count) {
            (Ok(file), Some(Ok(count))) if count == vocab_size => return Ok(file),
            (Ok(_), Some(Ok(count))) => format!("{count} tokens"),
            (Ok(_), _) => "no tokenizer".to_owned(),
            (Err(_), _) => "not readable".to_owned(),
        };
        let name = path.file_name().unwrap_or_default().display().to_string();
        seen.push(format!("{name} ({verdict})"));
    }
    let looked = if seen.is_empty() {
        "there is no tokenizer.bin or tok*.bin beside it".to_owned()
    } else {
        format!("beside it are {}", seen.join(", "))
    };
    Err(Error::failure(format_args!(
        "no tokenizer for {}, whose vocabulary has {vocab_size} tokens: {looked}; name one by --tokenizer",
        model.display()
    )))
}
