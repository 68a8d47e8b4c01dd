//! Which rule of pre-tokenization a `tokenizer.json` describes.

use llamita::tokenizer::PreTokenizer;
use serde_json::Value;

use crate::error::{Error, Result};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|]+";
const NUMBERS: &str = r"\p{N}+";
const THREE_DIGITS: &str = "[0-9][0-9][0-9]";

/// A step of a pre-tokenizer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step<'a> {
    /// Cuts out what a regular expression finds.
    Split(&'a str),
    /// Cuts out every digit by itself.
    Digits,
    /// Spells bytes in GPT-2's alphabet; the flag says whether words are cut by GPT-2's rule, too.
    ByteLevel(bool),
}

/// The rule of a byte-level vocabulary.
pub(super) fn byte_level(pre_tokenizer: &Value) -> Result<PreTokenizer> {
    use Step::{ByteLevel, Digits, Split};
    let mut steps = Vec::new();
    collect(pre_tokenizer, &mut steps)?;
    match steps[..] {
        [ByteLevel(true)] | [Split(GPT2), ByteLevel(false)] => Ok(PreTokenizer::Gpt2),
        [Digits, ByteLevel(true)] => Ok(PreTokenizer::SmolLm),
        [Split(LLAMA3), ByteLevel(false)] => Ok(PreTokenizer::LlamaBpe),
        [Split(QWEN2), ByteLevel(false)] => Ok(PreTokenizer::Qwen2),
        [Split(PUNCTUATION), Split(GPT2), Split(NUMBERS), Split(THREE_DIGITS), ByteLevel(false)] => {
            Ok(PreTokenizer::Default)
        }
        _ => Err(Error::refused(format_args!(
            "the tokenizer cuts text into words by a rule that is not supported, {pre_tokenizer}, supported \
             are those of {}: choose a model with one of those",
            PreTokenizer::SUPPORTED
        ))),
    }
}

fn collect<'a>(step: &'a Value, steps: &mut Vec<Step<'a>>) -> Result<()> {
    let flag = |name: &str, default: bool| step.get(name).and_then(Value::as_bool).unwrap_or(default);
    let text = |name: &str| step.get(name).and_then(Value::as_str);
    let found = match text("type") {
        Some("Sequence") => {
            let parts = step.get("pretokenizers").and_then(Value::as_array);
            return parts.into_iter().flatten().try_for_each(|step| collect(step, steps));
        }
        Some("ByteLevel") if !flag("add_prefix_space", true) => {
            Some(Step::ByteLevel(flag("use_regex", true)))
        }
        Some("Digits") if flag("individual_digits", false) => Some(Step::Digits),
        Some("Split") => {
            let pattern =
                step.get("pattern").and_then(|pattern| pattern.get("Regex")).and_then(Value::as_str);
            // To keep what is found, or to cut out what is not, is the same for a rule that finds everything.
            let whole = match (text("behavior"), flag("invert", false)) {
                (Some("Isolated"), false) => true,
                (Some("Removed"), true) => matches!(pattern, Some(GPT2 | LLAMA3 | QWEN2)),
                _ => false,
            };
            pattern.filter(|_| whole).map(Step::Split)
        }
        _ => None,
    };
    steps.push(found.ok_or_else(|| {
        Error::refused(format_args!(
            "the tokenizer cuts text into words by a step that is not supported, {step}, supported are the rules \
             of {}: choose a model with one of those",
            PreTokenizer::SUPPORTED
        ))
    })?);
    Ok(())
}

/// Whether a vocabulary of SentencePiece's kind has a space put before every text.
pub(super) fn space_prefix(normalizer: &Value, pre_tokenizer: &Value) -> Result<bool> {
    const MARK: &str = "\u{2581}";
    let text = |step: &Value, name: &str| step.get(name).and_then(Value::as_str).map(str::to_owned);
    let is_replace = |step: &Value| {
        let pattern = step.get("pattern").and_then(|pattern| pattern.get("String")).and_then(Value::as_str);
        text(step, "type").as_deref() == Some("Replace")
            && pattern == Some(" ")
            && text(step, "content").as_deref() == Some(MARK)
    };
    let is_prepend = |step: &Value| {
        text(step, "type").as_deref() == Some("Prepend") && text(step, "prepend").as_deref() == Some(MARK)
    };
    let steps = match normalizer.get("normalizers").and_then(Value::as_array) {
        Some(steps) => steps.iter().collect(),
        None if normalizer.is_null() => Vec::new(),
        None => vec![normalizer],
    };
    let metaspace = || {
        let plain = text(pre_tokenizer, "type").as_deref() == Some("Metaspace")
            && text(pre_tokenizer, "replacement").as_deref() == Some(MARK)
            && pre_tokenizer.get("split").and_then(Value::as_bool) == Some(false);
        match text(pre_tokenizer, "prepend_scheme").as_deref().filter(|_| plain) {
            Some("first" | "always") => Some(true),
            Some("never") => Some(false),
            _ => None,
        }
    };
    let found = match steps[..] {
        [prepend, replace] if is_prepend(prepend) && is_replace(replace) && pre_tokenizer.is_null() => {
            Some(true)
        }
        [replace] if is_replace(replace) && pre_tokenizer.is_null() => Some(false),
        [] => metaspace(),
        _ => None,
    };
    found.ok_or_else(|| {
        Error::refused(format_args!(
            "the tokenizer prepares text in a way that is not supported, by the normalizer {normalizer} and the \
             pre-tokenizer {pre_tokenizer}, expected Llama 2's, that is \"{MARK}\" for spaces and before a text: \
             choose a model with that"
        ))
    })
}
