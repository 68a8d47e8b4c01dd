//! Reading `tokenizer.json`, the format of Hugging Face's tokenizers.

mod rule;
mod scores;

use std::collections::HashMap;

use llamita::Tokenizer;
use serde::Deserialize;
use serde_json::Value;

use super::{Vocabulary, VocabularyModel, token_type};
use crate::error::{Error, Result};

/// The parts of a `tokenizer.json` that matter here; padding and truncation do not.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    model: Value,
}

/// A token that is found in text before that is cut into words.
#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Bpe {
    #[serde(default)]
    dropout: Option<f32>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// A pair as one string with a space, or as two.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Line(String),
    Pair(String, String),
}

impl Merge {
    fn parts(&self) -> Option<(&str, &str)> {
        match self {
            Self::Line(line) => line.split_once(' '),
            Self::Pair(left, right) => Some((left, right)),
        }
    }

    /// As GGUF has it.
    fn line(&self) -> Result<String> {
        match self.parts() {
            Some((left, right)) if !left.contains(' ') && !right.contains(' ') => {
                Ok(format!("{left} {right}"))
            }
            _ => Err(self.refuse()),
        }
    }

    fn refuse(&self) -> Error {
        let found = match self {
            Self::Line(line) => line.clone(),
            Self::Pair(left, right) => format!("{left} {right}"),
        };
        Error::refused(format_args!(
            "the merge {found:?} is not of two tokens that are a token together: the file is damaged, copy or \
             download it again"
        ))
    }
}

/// Reads the content of a `tokenizer.json`, and of the `tokenizer_config.json` beside it where there is one.
///
/// Byte-level vocabularies keep their merges, and the rule that cuts words is recognised. Those of Llama 2's
/// kind get scores from the order of their merges, which say the same. Text is taken as it comes: where a file
/// asks for normalisation to NFC, that is left to whoever supplies the text, as llama.cpp leaves it.
pub fn from_tokenizer_json(json: &[u8], config: Option<&[u8]>) -> Result<Vocabulary> {
    let file: File = parse(json)?;
    let config: Value = config.map(parse).transpose()?.unwrap_or_default();
    match file.model.get("type").and_then(Value::as_str) {
        None | Some("BPE") => (),
        Some(other) => {
            return Err(Error::refused(format_args!(
                "the tokenizer is of type \"{other}\", expected \"BPE\": choose a model with that"
            )));
        }
    }
    let bpe: Bpe = Bpe::deserialize(&file.model).map_err(no_tokenizer)?;
    check_plain(&bpe)?;
    let (tokens, types) = list(&file, &bpe)?;
    let id = |name: &str| {
        bpe.vocab
            .get(name)
            .copied()
            .or_else(|| file.added_tokens.iter().find(|added| added.content == name).map(|added| added.id))
    };
    // A token is named by its text, or by an object that has the text.
    let named = |key: &str| {
        let token = config.get(key)?;
        id(token.as_str().or_else(|| token.get("content")?.as_str())?)
    };
    let known = |names: &[&str]| names.iter().find_map(|name| id(name));
    let template = Template::read(&file.post_processor)?;
    let bos = template.bos.as_deref().and_then(id).or_else(|| named("bos_token"));
    let mut vocabulary = Vocabulary {
        model: VocabularyModel::Gpt2,
        pre: None,
        scores: vec![0.0; tokens.len()],
        tokens,
        types,
        merges: Vec::new(),
        // Without settings, what families call them.
        bos: bos.or_else(|| known(&BOS).filter(|_| config.is_null())),
        eos: named("eos_token").or_else(|| known(&EOS).filter(|_| config.is_null())),
        unknown: bpe.unk_token.as_deref().and_then(id),
        padding: named("pad_token"),
        add_space_prefix: false,
        add_bos: false,
        chat_template: chat_template(&config),
    };
    let flag = config.get("add_bos_token").and_then(Value::as_bool);
    if config.get("add_eos_token").and_then(Value::as_bool) == Some(true) {
        return Err(Error::refused(
            "the tokenizer ends every text by EOS (add_eos_token), expected texts that are left open: choose a \
             model that generates",
        ));
    }
    if bpe.byte_fallback {
        vocabulary.model = VocabularyModel::Llama;
        vocabulary.add_space_prefix = rule::space_prefix(&file.normalizer, &file.pre_tokenizer)?;
        vocabulary.add_bos = flag.unwrap_or(template.bos.is_some() || !template.given);
        scores::from_merges(&mut vocabulary, &bpe)?;
    } else {
        let rule = rule::byte_level(&file.pre_tokenizer)?;
        check_normalizer(&file.normalizer)?;
        if bpe.ignore_merges != rule.ignores_merges() {
            scores::check_whole(&vocabulary, &bpe)?;
        }
        vocabulary.pre = Some(rule.name().to_owned());
        vocabulary.add_bos = template.bos.is_some() || !template.given && flag == Some(true);
        vocabulary.merges = bpe.merges.iter().map(Merge::line).collect::<Result<_>>()?;
    }
    vocabulary.check()?;
    Ok(vocabulary)
}

/// What the families call the token that begins a text, and the one that ends it.
const BOS: [&str; 3] = ["<|begin_of_text|>", "<s>", "<|endoftext|>"];
const EOS: [&str; 5] = ["<|end_of_text|>", "<|eot_id|>", "</s>", "<|im_end|>", "<|endoftext|>"];

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(no_tokenizer)
}

fn no_tokenizer(error: serde_json::Error) -> Error {
    Error::refused(format_args!(
        "it is not what Hugging Face's tokenizers write ({error}): copy or download it again"
    ))
}

/// Refuses what would make other tokens of a text.
fn check_plain(bpe: &Bpe) -> Result<()> {
    let affix = |affix: &Option<String>| affix.as_ref().is_some_and(|affix| !affix.is_empty());
    for (name, found) in [
        ("continuing_subword_prefix", affix(&bpe.continuing_subword_prefix)),
        ("end_of_word_suffix", affix(&bpe.end_of_word_suffix)),
        ("dropout", bpe.dropout.is_some_and(|dropout| dropout != 0.0)),
    ] {
        if found {
            return Err(Error::refused(format_args!(
                "the tokenizer has {name}, which is not supported: choose a model of the family of Llama, \
                 SmolLM or GPT-2"
            )));
        }
    }
    Ok(())
}

/// Refuses normalizers, but for that to NFC, which ordinary text has already.
fn check_normalizer(normalizer: &Value) -> Result<()> {
    let steps = match normalizer.get("normalizers").and_then(Value::as_array) {
        Some(steps) => steps.as_slice(),
        None if normalizer.is_null() => &[],
        None => std::slice::from_ref(normalizer),
    };
    match steps.iter().find(|step| step.get("type").and_then(Value::as_str) != Some("NFC")) {
        None => Ok(()),
        Some(step) => Err(Error::refused(format_args!(
            "the tokenizer changes text by a step that is not supported, {step}, expected none or NFC: choose a \
             model without it"
        ))),
    }
}

/// The spelling and the type of each token.
fn list(file: &File, bpe: &Bpe) -> Result<(Vec<Vec<u8>>, Vec<i32>)> {
    let all = || {
        let added = file.added_tokens.iter().map(|added| (added.content.as_str(), added.id));
        bpe.vocab.iter().map(|(piece, &id)| (piece.as_str(), id)).chain(added)
    };
    let count = all().map(|(_, id)| id as usize + 1).max().unwrap_or(0);
    if count > Tokenizer::MAX_VOCAB_SIZE {
        return Err(Error::refused(format_args!(
            "token {} is beyond the limit of {}: the file is damaged, copy or download it again",
            count - 1,
            Tokenizer::MAX_VOCAB_SIZE
        )));
    }
    let mut tokens: Vec<Option<&str>> = vec![None; count];
    for (piece, id) in all() {
        if let Some(other) = tokens[id as usize].replace(piece).filter(|&other| other != piece) {
            return Err(Error::refused(format_args!(
                "token {id} is both {other:?} and {piece:?}, expected one of them: the file is damaged, copy or \
                 download it again"
            )));
        }
    }
    let spelled = |token: &Option<&str>| {
        token.map_or(token_type::UNUSED, |piece| {
            let is_byte = bpe.byte_fallback && super::is_byte_token(piece.as_bytes());
            if is_byte { token_type::BYTE } else { token_type::NORMAL }
        })
    };
    let mut types: Vec<i32> = tokens.iter().map(spelled).collect();
    for added in &file.added_tokens {
        types[added.id as usize] = match added {
            _ if bpe.byte_fallback && bpe.unk_token.as_ref() == Some(&added.content) => token_type::UNKNOWN,
            // Of SentencePiece's vocabularies the engine finds none but marks in a text.
            _ if added.special || bpe.byte_fallback => token_type::CONTROL,
            Added { single_word: false, lstrip: false, rstrip: false, .. } => token_type::USER_DEFINED,
            Added { content, .. } => {
                return Err(Error::refused(format_args!(
                    "the token {content:?} takes spaces around it or stands by itself only, which is not \
                     supported: choose a model without such tokens"
                )));
            }
        };
    }
    // What no text becomes may be called anything, but not nothing.
    let name = |(id, piece): (usize, Option<&str>)| match piece {
        Some(piece) => piece.as_bytes().to_vec(),
        None => format!("[PAD{id}]").into_bytes(),
    };
    Ok((tokens.into_iter().enumerate().map(name).collect(), types))
}

/// What is put around a text.
#[derive(Default)]
struct Template {
    /// Whether there is a template at all.
    given: bool,
    /// The token before the text.
    bos: Option<String>,
}

impl Template {
    fn read(processor: &Value) -> Result<Self> {
        let single = processors(processor)
            .into_iter()
            .find(|step| step.get("type").and_then(Value::as_str) == Some("TemplateProcessing"))
            .and_then(|template| template.get("single")?.as_array());
        let Some(single) = single else { return Ok(Self::default()) };
        let special = |piece: &Value| piece.get("SpecialToken")?.get("id")?.as_str().map(str::to_owned);
        match &single[..] {
            [text] if special(text).is_none() => Ok(Self { given: true, bos: None }),
            [bos, text] if special(bos).is_some() && special(text).is_none() => {
                Ok(Self { given: true, bos: special(bos) })
            }
            _ => Err(Error::refused(format_args!(
                "the tokenizer puts more around a text than one token before it, {}, which is not supported: \
                 choose a model that generates",
                Value::from(single.clone())
            ))),
        }
    }
}

fn processors(processor: &Value) -> Vec<&Value> {
    match processor.get("processors").and_then(Value::as_array) {
        Some(steps) => steps.iter().collect(),
        None => vec![processor],
    }
}

/// The chat template of a `tokenizer_config.json`; of several, which have names, the default.
pub(crate) fn chat_template(config: &Value) -> Option<String> {
    let template = config.get("chat_template")?;
    let named = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
    let of_list = || template.as_array()?.iter().find(named)?.get("template")?.as_str();
    template.as_str().or_else(of_list).map(str::to_owned)
}
