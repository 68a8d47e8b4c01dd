//! Vocabulary pruning: the tokens that a corpus needs, and a model that has only these.
//!
//! A token is reached by merging two others, so tokens are taken away from the ends: one that no token left is
//! merged of, the one whose loss makes the corpus longest the least. In a vocabulary of which only such tokens
//! are taken, the merges that lead to a token are all still there, and none is new that could come before
//! them: every token that stays is reached as it was.

mod merge;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use llamita::Config;
use llamita::weights::{Format, Matrix, Tensor};

use crate::error::{Error, Result};
use crate::source::{Integers, Source};
use crate::vocabulary::{Encoder, Scratch, Vocabulary, VocabularyModel, token_type};

use merge::{Merges, is_text};

/// Tokens that stay in a vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Their numbers, rising: the place of each is its number from now on.
    ids: Vec<u32>,
}

/// What a corpus becomes in a vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// How often each token occurs.
    pub counts: Vec<u64>,
    /// All tokens of the corpus, BOS not counted.
    pub tokens: u64,
    /// Characters of the corpus.
    pub characters: u64,
}

impl Usage {
    /// Encodes texts, each by itself.
    pub fn of(vocabulary: &Vocabulary, texts: &[&str]) -> Result<Self> {
        let mut encoder = Encoder::new(vocabulary)?;
        let (tokenizer, mut scratch) = (encoder.tokenizer()?, Scratch::default());
        let mut counts = vec![0; vocabulary.tokens.len()];
        let (mut all, mut characters) = (0, 0);
        for text in texts {
            let tokens = scratch.encode(&tokenizer, text)?;
            tokens.iter().for_each(|&token| counts[token as usize] += 1);
            all += tokens.len() as u64;
            characters += text.chars().count() as u64;
        }
        Ok(Self { counts, tokens: all, characters })
    }

    /// Tokens for each character.
    pub fn tokens_per_character(&self) -> f64 {
        self.tokens as f64 / self.characters as f64
    }

    /// The share of the tokens that are among those selected.
    pub fn coverage(&self, selection: &Selection) -> f64 {
        let kept: u64 = selection.ids.iter().map(|&id| self.counts[id as usize]).sum();
        kept as f64 / self.tokens as f64
    }
}

/// Rounds of taking tokens away; the corpus is encoded anew before each.
const ROUNDS: usize = 12;

impl Selection {
    /// Chooses `keep` tokens by what texts need.
    ///
    /// Special tokens, tokens of single bytes and the characters of the texts always stay.
    ///
    /// # Errors
    /// If there are not so many tokens, or more must stay.
    pub fn choose(vocabulary: &Vocabulary, texts: &[&str], keep: usize) -> Result<Self> {
        vocabulary.check()?;
        let size = vocabulary.tokens.len();
        if keep > size {
            return Err(Error::refused(format_args!(
                "{keep} tokens are to be kept, the vocabulary has {size}: keep no more than these"
            )));
        }
        let required = required(vocabulary, texts);
        let needed = required.iter().filter(|&&required| required).count();
        if keep < needed {
            return Err(Error::refused(format_args!(
                "{keep} tokens are to be kept, expected {needed} or more: the special tokens, those of bytes \
                 and the characters of the text are as many, keep more"
            )));
        }
        let mut forest = Forest::new(vocabulary, required);
        for round in 0..ROUNDS {
            let excess = forest.len() - keep;
            if excess == 0 {
                break;
            }
            let selection = forest.selection();
            let usage = Usage::of(&selection.vocabulary(vocabulary), texts)?;
            let counts = selection.spread(&usage.counts, size);
            // What is taken away changes what the rest is worth: the last ones are chosen with more care.
            let left = if round + 1 < ROUNDS { excess / 2 } else { 0 };
            forest.cut(counts, keep + left);
        }
        let selection = forest.selection();
        selection.check(vocabulary)?;
        Ok(selection)
    }

    /// The tokens that stay, rising.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The number that a token has from now on, if it stays.
    pub fn place(&self, id: u32) -> Option<u32> {
        self.ids.binary_search(&id).ok().map(|place| place as u32)
    }

    /// The vocabulary of the tokens that stay.
    pub fn vocabulary(&self, whole: &Vocabulary) -> Vocabulary {
        let id = |id: Option<u32>| id.and_then(|id| self.place(id));
        let tokens: Vec<_> = self.ids.iter().map(|&id| whole.tokens[id as usize].clone()).collect();
        let spellings: HashSet<&[u8]> = tokens.iter().map(Vec::as_slice).collect();
        let stays = |merge: &&String| {
            merge.split_once(' ').is_some_and(|(left, right)| {
                let joined = [left, right].concat();
                [left, right, &joined].iter().all(|part| spellings.contains(part.as_bytes()))
            })
        };
        Vocabulary {
            model: whole.model,
            pre: whole.pre.clone(),
            scores: self.ids.iter().map(|&id| whole.scores[id as usize]).collect(),
            types: self.ids.iter().map(|&id| whole.types[id as usize]).collect(),
            merges: whole.merges.iter().filter(stays).cloned().collect(),
            bos: id(whole.bos),
            eos: id(whole.eos),
            unknown: id(whole.unknown),
            padding: id(whole.padding),
            add_space_prefix: whole.add_space_prefix,
            add_bos: whole.add_bos,
            chat_template: whole.chat_template.clone(),
            tokens,
        }
    }

    /// Numbers of the tokens that stay as numbers of all tokens.
    fn spread(&self, counts: &[u64], size: usize) -> Vec<u64> {
        let mut all = vec![0; size];
        self.ids.iter().zip(counts).for_each(|(&id, &count)| all[id as usize] = count);
        all
    }

    /// Refuses a selection with a token that text does not become any more, though it did before.
    fn check(&self, whole: &Vocabulary) -> Result<()> {
        let pruned = self.vocabulary(whole);
        let (mut before, mut after) =
            (Encoder::new(whole)?.without_prefix(), Encoder::new(&pruned)?.without_prefix());
        let (before, after) = (before.tokenizer()?, after.tokenizer()?);
        let mut scratch = Scratch::default();
        for (place, &id) in (0..).zip(&self.ids).filter(|&(_, &id)| is_text(whole, id)) {
            let text = before.decode(u32::MAX, id).flatten().copied().collect();
            // A part of a character is no text by itself.
            let Ok(text) = String::from_utf8(text) else { continue };
            let reached = scratch.encode(&before, &text)? == [id];
            if reached && scratch.encode(&after, &text)? != [place] {
                return Err(Error::refused(format_args!(
                    "token {id}, {text:?}, is not reached any more without the tokens that were taken away: \
                     keep more tokens"
                )));
            }
        }
        Ok(())
    }
}

/// Which tokens must stay.
fn required(vocabulary: &Vocabulary, texts: &[&str]) -> Vec<bool> {
    let used: HashSet<char> = texts.iter().flat_map(|text| text.chars()).collect();
    let is_byte = |&kind: &i32| kind == token_type::BYTE;
    let all_bytes = vocabulary.types.iter().filter(|kind| is_byte(kind)).count() >= 256;
    let special = [vocabulary.bos, vocabulary.eos, vocabulary.unknown, vocabulary.padding];
    let is_required = |(id, token): (u32, &Vec<u8>)| {
        if special.contains(&Some(id)) {
            return true;
        }
        match vocabulary.types[id as usize] {
            token_type::UNUSED => false,
            token_type::NORMAL => match single(token) {
                None => false,
                Some('▁') => true,
                // In a byte-level vocabulary characters are bytes. Without bytes to fall back on, nothing
                // else stands for a character.
                Some(c) => vocabulary.model == VocabularyModel::Gpt2 || !all_bytes || used.contains(&c),
            },
            _ => true,
        }
    };
    (0..).zip(&vocabulary.tokens).map(is_required).collect()
}

/// The character that a token is, if it is one.
fn single(token: &[u8]) -> Option<char> {
    let mut characters = str::from_utf8(token).ok()?.chars();
    characters.next().filter(|_| characters.next().is_none())
}

/// Tokens that are merged of others, of which the ends can be cut.
struct Forest {
    /// For each token of the whole vocabulary, those that it is merged of last.
    parts: Vec<merge::Parts>,
    /// How many tokens that stay are merged of each.
    uses: Vec<u32>,
    required: Vec<bool>,
    stays: Vec<bool>,
    /// Where each token comes in the order in which tokens are given up that cost the same.
    worth: Vec<usize>,
}

impl Forest {
    fn new(vocabulary: &Vocabulary, required: Vec<bool>) -> Self {
        let merges = Merges::new(vocabulary);
        let size = vocabulary.tokens.len();
        let parts: Vec<_> = (0..size)
            .map(|id| {
                if required[id] || !is_text(vocabulary, id as u32) {
                    return merge::Parts { tokens: Vec::new(), count: 1 };
                }
                let mut parts = merges.parts(&vocabulary.tokens[id]);
                // A character is of no parts, and what is spelled as another token is not made of it.
                parts.tokens.retain(|&part| part as usize != id && parts.count > 1);
                parts
            })
            .collect();
        let mut uses = vec![0; size];
        parts.iter().flat_map(|parts| &parts.tokens).for_each(|&part| uses[part as usize] += 1);
        // Of tokens that cost the same, the one that is merged later is the rarer one; what is not used at
        // all goes before any.
        let mut order: Vec<_> = (0..size).collect();
        order.sort_by(|&a, &b| {
            let is_used = |id: usize| vocabulary.types[id] != token_type::UNUSED;
            let score = |id: usize| vocabulary.scores[id];
            is_used(a).cmp(&is_used(b)).then(score(a).total_cmp(&score(b))).then(b.cmp(&a))
        });
        let mut worth = vec![0; size];
        order.iter().enumerate().for_each(|(place, &id)| worth[id] = place);
        Self { parts, uses, required, stays: vec![true; size], worth }
    }

    fn len(&self) -> usize {
        self.stays.iter().filter(|&&stays| stays).count()
    }

    fn selection(&self) -> Selection {
        let stays = self.stays.iter().zip(0..).filter(|&(&stays, _)| stays);
        Selection { ids: stays.map(|(_, id)| id).collect() }
    }

    /// Takes away tokens that no other is merged of until `keep` are left, those whose loss costs the fewest
    /// tokens first; `counts` says how often each occurs.
    fn cut(&mut self, mut counts: Vec<u64>, keep: usize) {
        let end = |forest: &Self, counts: &[u64], id: usize| {
            let more = forest.parts[id].count.saturating_sub(1) as u64;
            Reverse((counts[id] * more, forest.worth[id], id))
        };
        let is_end =
            |forest: &Self, id: usize| forest.stays[id] && !forest.required[id] && forest.uses[id] == 0;
        let ids = (0..self.stays.len()).filter(|&id| is_end(self, id));
        let mut ends: BinaryHeap<_> = ids.map(|id| end(self, &counts, id)).collect();
        let mut len = self.len();
        while len > keep
            && let Some(Reverse((_, _, id))) = ends.pop()
        {
            self.stays[id] = false;
            len -= 1;
            for place in 0..self.parts[id].tokens.len() {
                let part = self.parts[id].tokens[place] as usize;
                // From now on its parts stand where it stood.
                counts[part] += counts[id];
                self.uses[part] -= 1;
                if is_end(self, part) {
                    ends.push(end(self, &counts, part));
                }
            }
        }
    }
}

/// A model with fewer tokens: rows of the embedding and the classifier are picked, all else is as it was.
pub struct Pruned {
    source: Box<dyn Source>,
    selection: Selection,
    config: Config,
    vocabulary: Vocabulary,
}

impl Pruned {
    /// The model of `source` with the tokens of a selection from its vocabulary.
    ///
    /// # Errors
    /// If the model has no vocabulary.
    pub fn new(source: Box<dyn Source>, selection: Selection) -> Result<Self> {
        let Some(whole) = source.vocabulary() else {
            return Err(Error::refused(
                "the model comes without a vocabulary, expected one to prune: name it by --tokenizer",
            ));
        };
        let vocabulary = selection.vocabulary(whole);
        let config = Config { vocab_size: selection.ids.len(), ..*source.config() };
        Ok(Self { source, selection, config, vocabulary })
    }

    /// Calls `read` for each run of rows that follow each other in the whole model: with the first of them
    /// there, the first here counted from `first_row`, and how many there are.
    fn runs(
        &mut self,
        first_row: usize,
        count: usize,
        mut read: impl FnMut(&mut dyn Source, usize, usize, usize) -> Result<()>,
    ) -> Result<()> {
        let ids = &self.selection.ids[first_row..first_row + count];
        let mut place = 0;
        for run in ids.chunk_by(|a, b| a + 1 == *b) {
            read(self.source.as_mut(), run[0] as usize, place, run.len())?;
            place += run.len();
        }
        Ok(())
    }
}

/// Whether a tensor has a row for each token.
fn has_tokens(tensor: Tensor) -> bool {
    matches!(tensor, Tensor::Embedding | Tensor::Matrix(Matrix::Classifier))
}

impl Source for Pruned {
    fn config(&self) -> &Config {
        &self.config
    }

    fn name(&self) -> Option<&str> {
        self.source.name()
    }

    fn vocabulary(&self) -> Option<&Vocabulary> {
        Some(&self.vocabulary)
    }

    fn rope_tables(&self) -> Option<&[u8]> {
        self.source.rope_tables()
    }

    fn stored(&self, tensor: Tensor) -> Format {
        self.source.stored(tensor)
    }

    fn read(&mut self, tensor: Tensor, first_row: usize, out: &mut [f32]) -> Result<()> {
        if !has_tokens(tensor) {
            return self.source.read(tensor, first_row, out);
        }
        let columns = self.config.dim;
        assert!(out.len().is_multiple_of(columns), "{} numbers are no whole rows of {columns}", out.len());
        self.runs(first_row, out.len() / columns, |source, row, place, count| {
            source.read(tensor, row, &mut out[place * columns..][..count * columns])
        })
    }

    fn read_integers(
        &mut self,
        tensor: Tensor,
        first_row: usize,
        values: &mut [i8],
        scales: &mut [u16],
    ) -> Result<()> {
        if !has_tokens(tensor) {
            return self.source.read_integers(tensor, first_row, values, scales);
        }
        let columns = self.config.dim;
        assert!(values.len().is_multiple_of(columns), "{} numbers are no whole rows", values.len());
        let integers = Integers::of(self.stored(tensor), columns).expect("the tensor is stored in integers");
        let groups = integers.groups(columns);
        self.runs(first_row, values.len() / columns, |source, row, place, count| {
            let values = &mut values[place * columns..][..count * columns];
            source.read_integers(tensor, row, values, &mut scales[place * groups..][..count * groups])
        })
    }
}

#[cfg(test)]
mod tests;
