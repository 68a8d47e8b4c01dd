//! What the order of merges says about a vocabulary.

use std::collections::HashMap;

use super::{Bpe, Vocabulary};
use crate::error::{Error, Result};
use crate::vocabulary::token_type;

/// Gives a vocabulary of SentencePiece's kind the scores that its merges came from: the sooner a piece is made,
/// the higher.
///
/// With scores, any two neighbours that are a piece together can be merged; so every way to make a piece must be
/// among the merges, and those of one piece must come before all of the next. Files that were converted from
/// SentencePiece's own have it so. Pieces that no merge makes are never produced.
pub(super) fn from_merges(vocabulary: &mut Vocabulary, bpe: &Bpe) -> Result<()> {
    // For each piece the first rank, the last one, and the number of merges that make it.
    let mut ranks: HashMap<String, (usize, usize, usize)> = HashMap::new();
    for (rank, merge) in bpe.merges.iter().enumerate() {
        let (left, right) = merge.parts().ok_or_else(|| merge.refuse())?;
        let piece = [left, right].concat();
        if ![left, right, &piece].iter().all(|&piece| bpe.vocab.contains_key(piece)) {
            return Err(merge.refuse());
        }
        let (_, last, count) = ranks.entry(piece).or_insert((rank, rank, 0));
        (*last, *count) = (rank, *count + 1);
    }
    let is_text = |id: u32| vocabulary.types[id as usize] == token_type::NORMAL;
    let texts: Vec<(&str, u32)> =
        bpe.vocab.iter().map(|(piece, &id)| (piece.as_str(), id)).filter(|&(_, id)| is_text(id)).collect();
    let mut made: Vec<(usize, usize)> = Vec::new();
    let mut changes = Vec::new();
    for &(piece, id) in &texts {
        let is_piece = |part| bpe.vocab.get(part).is_some_and(|&id| is_text(id));
        let cuts = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
        let ways = cuts.filter(|&(left, right)| is_piece(left) && is_piece(right)).count();
        match ranks.get(piece) {
            Some(&(first, last, count)) if count == ways => {
                made.push((first, last));
                changes.push((id, -(first as f32), token_type::NORMAL));
            }
            None if ways == 0 => {
                let single = piece.chars().nth(1).is_none();
                let kind = if single { token_type::NORMAL } else { token_type::UNUSED };
                changes.push((id, -(bpe.merges.len() as f32), kind));
            }
            found => {
                let count = found.map_or(0, |&(.., count)| count);
                return Err(Error::refused(format_args!(
                    "{count} merges make the piece {piece:?}, expected {ways}, one for each two pieces that it \
                     is made of: the tokenizer does not come from SentencePiece, choose a model with a \
                     tokenizer.model"
                )));
            }
        }
    }
    made.sort_unstable();
    if let Some(pair) = made.array_windows().find(|[before, after]| before.1 > after.0) {
        return Err(Error::refused(format_args!(
            "merge {} makes another piece than those before and after it: the tokenizer does not come from \
             SentencePiece, choose a model with a tokenizer.model",
            pair[1].0
        )));
    }
    for (id, score, kind) in changes {
        vocabulary.scores[id as usize] = score;
        vocabulary.types[id as usize] = kind;
    }
    Ok(())
}

/// Refuses merges that do not make every piece of its own text, for which it matters whether words that are
/// pieces are merged at all.
pub(super) fn check_whole(vocabulary: &Vocabulary, bpe: &Bpe) -> Result<()> {
    let mut ranks: HashMap<(&str, &str), usize> = HashMap::new();
    for (rank, merge) in bpe.merges.iter().enumerate() {
        ranks.insert(merge.parts().ok_or_else(|| merge.refuse())?, rank);
    }
    let is_whole = |piece: &str| {
        // The begins of the symbols, and the end of the last one.
        let mut cuts: Vec<usize> = piece.char_indices().map(|(at, _)| at).chain([piece.len()]).collect();
        loop {
            let pairs = cuts.array_windows().enumerate().filter_map(|(at, &[from, middle, to])| {
                Some((*ranks.get(&(&piece[from..middle], &piece[middle..to]))?, at))
            });
            match pairs.min() {
                Some((_, at)) => cuts.remove(at + 1),
                None => return cuts.len() <= 2,
            };
        }
    };
    let is_text = |id: u32| vocabulary.types[id as usize] == token_type::NORMAL;
    match bpe.vocab.iter().find(|&(piece, &id)| is_text(id) && !is_whole(piece)) {
        None => Ok(()),
        Some((piece, _)) => Err(Error::refused(format_args!(
            "ignore_merges is {} and the merges do not make the token {piece:?}, which the rule that cuts text \
             into words is not known with: choose a model of the family of Llama, SmolLM, Qwen 2 or GPT-2",
            bpe.ignore_merges
        ))),
    }
}
