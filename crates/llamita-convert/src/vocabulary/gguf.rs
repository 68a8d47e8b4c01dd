//! The tokenizer keys of a GGUF file.

use llamita::Model;
use llamita::format::Value;
use llamita::tokenizer::PreTokenizer;

use super::{Vocabulary, VocabularyModel, token_type};
use crate::error::{Error, Result};

/// Reads the vocabulary of a model, if its file has one: GGUF usually, llama2.c checkpoints never.
pub fn from_gguf(model: &Model<'_>) -> Result<Option<Vocabulary>> {
    let key = |name: &str| model.metadata(&format!("tokenizer.ggml.{name}"));
    let Some(Value::Array(tokens)) = key("tokens") else {
        return Ok(None);
    };
    let vocabulary_model = match key("model") {
        Some(Value::String(b"llama")) => VocabularyModel::Llama,
        Some(Value::String(b"gpt2")) => VocabularyModel::Gpt2,
        other => {
            let found = match other {
                Some(Value::String(name)) => format!("\"{}\"", name.escape_ascii()),
                _ => "missing".to_owned(),
            };
            return Err(Error::refused(format_args!(
                "tokenizer.ggml.model is {found}, supported are \"llama\" and \"gpt2\": choose such a model"
            )));
        }
    };
    let tokens: Vec<_> = tokens.strings().map(<[u8]>::to_vec).collect();
    let words = |name: &str| match key(name) {
        Some(Value::Array(array)) => Some(array.words().collect::<Vec<_>>()),
        _ => None,
    };
    let scores = words("scores").map(|words| words.into_iter().map(f32::from_le_bytes).collect());
    let types = words("token_type").map(|words| words.into_iter().map(i32::from_le_bytes).collect());
    let id = |name: &str| match key(&format!("{name}_token_id")) {
        Some(Value::Unsigned(id)) => u32::try_from(id).ok().filter(|&id| (id as usize) < tokens.len()),
        _ => None,
    };
    let flag = |name: &str| match key(name) {
        Some(Value::Bool(flag)) => Some(flag),
        _ => None,
    };
    let text = |value| match value {
        Some(Value::String(text)) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    };
    let merges = match key("merges") {
        Some(Value::Array(array)) => {
            array.strings().map(|merge| String::from_utf8_lossy(merge).into_owned()).collect()
        }
        _ => Vec::new(),
    };
    // Where a key is missing, what llama.cpp takes in its place: the family's special tokens.
    let is_llama = vocabulary_model == VocabularyModel::Llama;
    let usual = |id: u32| (is_llama && (id as usize) < tokens.len()).then_some(id);
    let (bos, eos) = (id("bos").or(usual(1)), id("eos").or(usual(2)));
    let unknown = id("unknown").or(usual(0));
    let rule = match key("pre") {
        Some(Value::String(name)) => PreTokenizer::from_name(name),
        _ => None,
    };
    let vocabulary = Vocabulary {
        model: vocabulary_model,
        pre: text(key("pre")),
        scores: scores.unwrap_or_else(|| vec![0.0; tokens.len()]),
        types: types.unwrap_or_else(|| guess_types(&tokens, [bos, eos], unknown)),
        merges,
        bos,
        eos,
        unknown,
        padding: id("padding"),
        add_space_prefix: flag("add_space_prefix").unwrap_or(is_llama),
        add_bos: flag("add_bos_token")
            .unwrap_or_else(|| is_llama || rule.is_some_and(PreTokenizer::adds_bos)),
        chat_template: text(model.metadata("tokenizer.chat_template")),
        tokens,
    };
    vocabulary.check()?;
    Ok(Some(vocabulary))
}

/// The types of tokens that come without: special tokens by their ids, byte tokens by their spelling.
fn guess_types(tokens: &[Vec<u8>], control: [Option<u32>; 2], unknown: Option<u32>) -> Vec<i32> {
    let kind = |(token, piece): (u32, &Vec<u8>)| match Some(token) {
        token if token == unknown => token_type::UNKNOWN,
        token if control.contains(&token) => token_type::CONTROL,
        _ if super::is_byte_token(piece) => token_type::BYTE,
        _ => token_type::NORMAL,
    };
    (0..).zip(tokens).map(kind).collect()
}
