//! Pruning the vocabulary of a model on the way from one file to another, and what that costs.

use std::path::{Path, PathBuf};

use llamita::Tokenizer;
use llamita_convert::vocabulary::Encoder;
use llamita_convert::{Plan, Pruned, Rounding, Selection, Source, Usage, Vocabulary};
use llamita_storage::Placement;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::load::File;
use crate::options::{self, positive};
use crate::output::Table;
use crate::stories::{self, Stories};
use crate::units::grouped;

/// Which tokens to keep.
#[derive(clap::Args)]
pub struct PruningArguments {
    /// Keep only the tokens that this text needs most, of as many as --keep says; any other text can still be
    /// read and written, in more tokens
    #[arg(long, value_name = "TEXT", requires = "keep")]
    prune_vocab: Option<PathBuf>,

    /// Tokens to keep, special tokens, those of single bytes and the characters of the text among them;
    /// wherever a token is missing, a model that was trained with it predicts much worse: see --eval
    #[arg(long, value_name = "N", requires = "prune_vocab", value_parser = positive)]
    keep: Option<usize>,

    /// Measure on this text what pruning costs, in tokens and in bits per byte
    #[arg(long, value_name = "TEXT", requires = "prune_vocab")]
    eval: Option<PathBuf>,
}

/// What pruning did.
#[derive(Serialize)]
pub struct Report {
    vocab_size: [usize; 2],
    /// On the text that the tokens were chosen by.
    text: Cost,
    /// On the text that was named to measure with.
    eval: Option<Cost>,
    /// Of the model on the latter, before and after.
    bits_per_byte: Option<[f64; 2]>,
}

/// What a text costs, with all tokens and with those that are left.
#[derive(Serialize)]
struct Cost {
    path: String,
    /// The share of the text's tokens that are left.
    coverage: f64,
    tokens: [u64; 2],
    tokens_per_character: [f64; 2],
}

impl PruningArguments {
    /// The files that are read, none of which may be written to.
    pub fn inputs(&self) -> impl Iterator<Item = &Path> + Clone {
        [&self.prune_vocab, &self.eval].into_iter().flatten().map(PathBuf::as_path)
    }

    /// The model with fewer tokens and what that costs, or as it is where nothing is to be pruned.
    pub fn apply(&self, mut source: Box<dyn Source>) -> Result<(Box<dyn Source>, Option<Report>)> {
        let (Some(path), Some(keep)) = (&self.prune_vocab, self.keep) else {
            return Ok((source, None));
        };
        let text = File::open(path, Placement::HugePages)?;
        let corpus = split(&text)?;
        let whole = source.vocabulary().cloned().ok_or_else(|| {
            Error::failure(
                "the model comes without a tokenizer, expected one to prune: name it by --tokenizer",
            )
        })?;
        let selection = Selection::choose(&whole, &corpus, keep)
            .map_err(|error| Error::failure(format_args!("{error}, see --keep")))?;
        let pruned = selection.vocabulary(&whole);
        let cost = |file: &File, stories: &[&str]| -> Result<Cost> {
            let usage = [&whole, &pruned].map(|vocabulary| Usage::of(vocabulary, stories));
            let [before, after] = usage.map(|usage| usage.map_err(Error::failure));
            let (before, after) = (before?, after?);
            Ok(Cost {
                path: file.path.display().to_string(),
                coverage: before.coverage(&selection),
                tokens: [before.tokens, after.tokens],
                tokens_per_character: [before.tokens_per_character(), after.tokens_per_character()],
            })
        };
        let mut report = Report {
            vocab_size: [whole.tokens.len(), pruned.tokens.len()],
            text: cost(&text, &corpus)?,
            eval: None,
            bits_per_byte: None,
        };
        let Some(path) = &self.eval else {
            let source = Pruned::new(source, selection).map_err(Error::failure)?;
            return Ok((Box::new(source), Some(report)));
        };
        let text = File::open(path, Placement::HugePages)?;
        let stories = split(&text)?;
        report.eval = Some(cost(&text, &stories)?);
        let stories = fit(&whole, &pruned, &stories, source.config().seq_len)?;
        let before = bits_per_byte(source.as_mut(), &whole, &stories, &text)?;
        let mut source = Pruned::new(source, selection).map_err(Error::failure)?;
        let after = bits_per_byte(&mut source, &pruned, &stories, &text)?;
        report.bits_per_byte = Some([before, after]);
        Ok((Box::new(source), Some(report)))
    }
}

/// The stories of a text; there is one at least.
fn split(text: &File) -> Result<Vec<&str>> {
    let all = options::utf8(text.content.bytes(), &text.path.display().to_string())?;
    let stories: Vec<_> = stories::split(all).collect();
    if stories.is_empty() {
        return Err(Error::file(&text.path, "it has no story, expected text: name a file with some"));
    }
    Ok(stories)
}

/// The stories as far as they fit the context, however they are encoded.
fn fit<'t>(
    whole: &Vocabulary,
    pruned: &Vocabulary,
    stories: &[&'t str],
    context: usize,
) -> Result<Vec<&'t str>> {
    let mut encoders = [encoder(whole)?, encoder(pruned)?];
    let [a, b] = &mut encoders;
    let tokenizers = [a.tokenizer().map_err(Error::failure)?, b.tokenizer().map_err(Error::failure)?];
    stories.iter().map(|story| stories::fit(&tokenizers, story, [context; 2])).collect()
}

fn encoder(vocabulary: &Vocabulary) -> Result<Encoder> {
    Encoder::new(vocabulary).map_err(Error::failure)
}

/// How well a model predicts stories that fit its context, of a text that is named for errors.
fn bits_per_byte(
    source: &mut dyn Source,
    vocabulary: &Vocabulary,
    stories: &[&str],
    text: &File,
) -> Result<f64> {
    let config = *source.config();
    let mut encoder = encoder(vocabulary)?;
    let tokenizer: Tokenizer<'_> = encoder.tokenizer().map_err(Error::failure)?;
    let stories = Stories::encode(&tokenizer, stories, config.seq_len)?;
    let bytes = stories.bytes(&tokenizer);
    if bytes == 0 {
        let message = "its stories have no bytes to predict within the model's context, expected 1 or more: \
                       name another text";
        return Err(Error::file(&text.path, message));
    }

    let plan = Plan::nearest(source).map_err(Error::failure)?;
    let model = File::repack(&text.path, source, &plan, &mut Rounding)?;
    Ok(stories::bits_per_byte(stories.nll(&model)?, bytes))
}

impl Report {
    /// The report as lines.
    pub fn text(&self) -> String {
        let mut table = Table::new(["vocabulary", "before", "after", "change"]);
        let mut row = |name: &str, [before, after]: [f64; 2], text: fn(f64) -> String| {
            let change = format!("{:+.2} %", 100.0 * (after / before - 1.0));
            table.row([name, &text(before), &text(after), &change]);
        };
        row("tokens", self.vocab_size.map(|size| size as f64), |size| grouped(size as u64));
        for (name, cost) in [("the text", Some(&self.text)), ("--eval", self.eval.as_ref())] {
            let Some(cost) = cost else { continue };
            row(&format!("tokens per character, {name}"), cost.tokens_per_character, |rate| {
                format!("{rate:.4}")
            });
        }
        if let Some(bits) = self.bits_per_byte {
            row("bits per byte, --eval", bits, |bits| format!("{bits:.5}"));
        }
        let mut text = table.lines();
        for (name, cost) in [("the text", Some(&self.text)), ("--eval", self.eval.as_ref())] {
            let Some(Cost { path, coverage, tokens, .. }) = cost else { continue };
            let tokens = grouped(tokens[0]);
            text += &format!("of {tokens} tokens of {name}, {path}, {:.2} % are left\n", 100.0 * coverage);
        }
        text
    }
}

#[cfg(test)]
#[path = "../../llamita/tests/common/data.rs"]
mod data;

#[cfg(test)]
mod tests {
    use llamita_convert::source::Checkpoint;
    use llamita_convert::vocabulary::from_llama2c_bin;

    use super::*;

    #[test]
    fn a_pruned_model_costs_what_its_report_says() {
        let Some(path) = data::path("data/models/stories260K.bin") else { return };
        let tokens = std::fs::read(data::path("data/models/tok512.bin").unwrap()).unwrap();
        let all = std::fs::read_to_string(data::path("data/tinystories/valid.txt").unwrap()).unwrap();
        let text = std::env::temp_dir().join(format!("llamita-pruning-{}.txt", std::process::id()));
        std::fs::write(&text, all.split_inclusive("<|endoftext|>").take(30).collect::<String>()).unwrap();
        let apply = |keep| {
            let mut source = Checkpoint::open(&path).unwrap();
            source.set_vocabulary(from_llama2c_bin(&tokens).unwrap());
            let (prune_vocab, eval) = (Some(text.clone()), Some(text.clone()));
            PruningArguments { prune_vocab, keep, eval }.apply(Box::new(source))
        };
        // With all tokens it is the same model.
        let (source, report) = apply(Some(512)).unwrap();
        let report = report.unwrap();
        let [before, after] = report.bits_per_byte.unwrap();
        assert_eq!((before, source.config().vocab_size), (after, 512));
        assert_eq!(report.text.coverage, 1.0);
        let (source, report) = apply(Some(420)).unwrap();
        let report = report.unwrap();
        let [same, after] = report.bits_per_byte.unwrap();
        assert!(same == before || (same - before).abs() < 0.01, "{same} {before}");
        assert!(after > before && after < 2.0 * before, "{after} {before}");
        assert_eq!((source.config().vocab_size, source.vocabulary().unwrap().tokens.len()), (420, 420));
        let Cost { coverage, tokens, .. } = report.eval.as_ref().unwrap();
        assert!((0.6..1.0).contains(coverage) && tokens[0] < tokens[1], "{coverage} {tokens:?}");
        assert!(report.text().contains("bits per byte, --eval"), "{}", report.text());
        let error = apply(Some(300)).err().unwrap().to_string();
        assert!(error.contains("300 tokens are to be kept") && error.contains("--keep"), "{error}");
        std::fs::remove_file(&text).unwrap();
    }
}
