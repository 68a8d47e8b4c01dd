//! The merges of a byte-level vocabulary: which pairs of tokens may be joined, and which of them first.

use super::index::Table;
use super::vocabulary::strings;
use super::{PreTokenizer, TokenizerError};

/// Bits of an entry that say where its merge cuts the token.
const CUT_BITS: u32 = 12;

/// The merges, gathered by the token that they make.
///
/// A token may be made in several ways, of which each has its own rank. Since a token is found by its text,
/// a merge is known by its token and the length of the left part. Most tokens are made in one way.
#[derive(Clone, Copy)]
pub(super) struct Merges<'a> {
    /// How the vocabulary cuts text into words.
    pub(super) rule: PreTokenizer,
    /// Where the entries of each token end; they begin where those of the token before end: (vocab_size,).
    ends: &'a [u32],
    /// The rank of a merge, and in the lowest bits the bytes of the left part: (merges,).
    entries: &'a [u32],
}

impl<'a> Merges<'a> {
    /// Largest number of merges, and of bytes of a left part plus one.
    pub(super) const LIMIT: usize = 1 << (u32::BITS - CUT_BITS);
    pub(super) const CUT_LIMIT: usize = 1 << CUT_BITS;

    /// The rank of the merge that makes a token of a left part of so many bytes and the rest.
    #[inline]
    pub(super) fn rank(&self, token: u32, left: usize) -> Option<u32> {
        let token = token as usize;
        let start = token.checked_sub(1).map_or(0, |before| self.ends[before]);
        let entries = &self.entries[start as usize..self.ends[token] as usize];
        let cut = (Self::CUT_LIMIT - 1) as u32;
        entries.iter().find(|&entry| (entry & cut) as usize == left).map(|entry| entry >> CUT_BITS)
    }

    /// Reads `merges`, strings with a space between the parts, the first rank first; `table` has the pieces.
    pub(super) fn build(
        table: &Table<'_>,
        rule: PreTokenizer,
        merges: &[u8],
        ends: &'a mut [u32],
        entries: &'a mut [u32],
    ) -> Result<Self, TokenizerError> {
        if entries.len() > Self::LIMIT {
            return Err(TokenizerError::MergeLimit { found: entries.len() });
        }
        let mut read = 0;
        for (merge, string) in strings(merges, entries.len()).enumerate() {
            let string = string.map_err(|_| TokenizerError::Merge { merge })?;
            let (token, _) = resolve(table, string, true).ok_or(TokenizerError::Merge { merge })?;
            ends[token as usize] += 1;
            read += string.len() + size_of::<u64>();
        }
        if read != merges.len() {
            let (found, expected) = (merges.len(), read);
            return Err(TokenizerError::ArrayLength { array: "merges", found, expected });
        }
        // First where the entries of each token begin; each entry then moves that towards their end.
        let mut start = 0;
        for end in ends.iter_mut() {
            let count = core::mem::replace(end, start);
            start += count;
        }
        for (merge, string) in strings(merges, entries.len()).enumerate() {
            let found = string.ok().and_then(|string| resolve(table, string, false));
            let (token, cut) = found.ok_or(TokenizerError::Merge { merge })?;
            let end = &mut ends[token as usize];
            entries[*end as usize] = (merge as u32) << CUT_BITS | cut;
            *end += 1;
        }
        Ok(Self { rule, ends, entries })
    }
}

/// The token that a merge makes, and the bytes of the left part; `check` looks for the parts, too.
fn resolve(table: &Table<'_>, merge: &[u8], check: bool) -> Option<(u32, u32)> {
    let space = merge.iter().position(|&byte| byte == b' ')?;
    let (left, right) = (&merge[..space], &merge[space + 1..]);
    if left.is_empty() || right.is_empty() || right.contains(&b' ') {
        return None;
    }
    let text = |part| table.pieces.alphabet.text(part);
    if check && (table.find_iter(text(left)).is_none() || table.find_iter(text(right)).is_none()) {
        return None;
    }
    let found = table.find_iter(text(left).chain(text(right)))?;
    let cut = text(left).count();
    (cut < Merges::CUT_LIMIT).then_some((found.token, cut as u32))
}
