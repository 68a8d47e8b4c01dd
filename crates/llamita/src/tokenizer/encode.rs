//! From text to tokens: words, and the merging of neighbours within them.

use super::index::{JOINS, NONE, Table, join};
use super::special::Wanted;
use super::{Split, Tokenizer, TokenizerError};

/// Bytes of a word that is merged on the stack; longer ones take the memory that is lent.
pub(super) const SHORT: usize = 32;
/// Positions have 32 bits; the space before the text takes one.
pub(super) const MAX_TEXT: u32 = u32::MAX - 1;

/// Memory for encoding, lent by the caller: one element for each byte of a long word.
///
/// What stands for a byte holds a symbol, which is a part of the word, if the symbol begins there.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Bytes of the symbol; stands at its last byte too.
    len: u32,
    /// The token that the symbol is, if it was merged.
    token: u32,
    /// The score of the piece that this symbol and the next one are, as a key; 0 where there is none.
    key: u32,
    /// The token of that piece.
    merged: u32,
    /// A part of the heap, which is independent of the symbols.
    heap: [u64; 2],
}

impl Work {
    /// A place holder, to fill the memory that is lent.
    pub const EMPTY: Self = Self { len: 0, token: NONE, key: 0, merged: NONE, heap: [0; 2] };
}

/// The tokens that were written.
struct Output<'t> {
    tokens: &'t mut [u32],
    count: usize,
    /// Tokens that are enough for the text, to be named where there are fewer.
    enough: usize,
}

impl Output<'_> {
    fn push(&mut self, token: u32) -> Result<(), TokenizerError> {
        let found = self.tokens.len();
        let memory = TokenizerError::TokenMemory { found, enough: self.enough };
        *self.tokens.get_mut(self.count).ok_or(memory)? = token;
        self.count += 1;
        Ok(())
    }

    fn last(&self) -> Option<u32> {
        self.tokens[..self.count].last().copied()
    }
}

/// A word of at most [`SHORT`] bytes, cut into symbols.
pub(super) struct Symbols {
    count: usize,
    /// Where each symbol begins, and the end of the last one.
    starts: [u8; SHORT + 1],
    /// The tokens of the symbols that were merged.
    tokens: [u32; SHORT],
}

impl Symbols {
    /// Whether a single token is left.
    pub(super) fn is_only(&self, token: u32) -> bool {
        // A single character is never merged, but is what it is.
        self.count == 1 && (self.tokens[0] == token || self.tokens[0] == NONE)
    }
}

/// Whether a byte continues a character.
#[inline(always)]
pub(super) const fn continues(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

impl Table<'_> {
    /// Merges a word of at most [`SHORT`] bytes, by looking at all pairs for the best one each time.
    pub(super) fn merge_short(&self, text: &[u8], start: usize, end: usize) -> Symbols {
        let mut starts = [0; SHORT + 1];
        let mut count = 0;
        for (at, &byte) in text[start..end].iter().enumerate() {
            if self.begins(byte) || at == 0 {
                starts[count] = at as u8;
                count += 1;
            }
        }
        starts[count] = (end - start) as u8;
        let pair = |starts: &[u8; SHORT + 1], at: usize| {
            let (from, to) = (usize::from(starts[at]), usize::from(starts[at + 2]));
            self.key(self.find(text, start + from, to - from), usize::from(starts[at + 1]) - from)
        };
        let mut tokens = [NONE; SHORT];
        // The pair that each symbol and the next one are: the key of its score, 0 for none, and its token.
        let mut pairs = [(0, NONE); SHORT];
        for (at, entry) in pairs[..count - 1].iter_mut().enumerate() {
            *entry = pair(&starts, at);
        }
        loop {
            let (mut best, mut best_key) = (0, 0);
            for (at, &(key, _)) in pairs[..count - 1].iter().enumerate() {
                if key > best_key {
                    (best, best_key) = (at, key);
                }
            }
            if best_key == 0 {
                return Symbols { count, starts, tokens };
            }
            tokens[best] = pairs[best].1;
            starts.copy_within(best + 2..=count, best + 1);
            tokens.copy_within(best + 2..count, best + 1);
            pairs.copy_within(best + 2..count, best + 1);
            count -= 1;
            pairs[best] = if best + 1 < count { pair(&starts, best) } else { (0, NONE) };
            if best > 0 {
                pairs[best - 1] = pair(&starts, best - 1);
            }
        }
    }
}

/// A word that may begin with the space before the text, which is not in the text.
#[derive(Clone, Copy)]
struct Word<'t> {
    prefix: usize,
    text: &'t [u8],
}

impl Word<'_> {
    fn len(&self) -> usize {
        self.prefix + self.text.len()
    }

    fn byte(&self, at: usize) -> u8 {
        if at < self.prefix { b' ' } else { self.text[at - self.prefix] }
    }
}

/// The heap within [`Work`]: the highest entry first.
struct Heap {
    len: usize,
}

impl Heap {
    /// The higher the score the sooner; of equal ones the first in the text.
    const fn entry(key: u32, at: usize) -> u64 {
        (key as u64) << 32 | (u32::MAX - at as u32) as u64
    }

    fn push(&mut self, work: &mut [Work], entry: u64) {
        let mut at = self.len;
        self.len += 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            let above = work[parent / 2].heap[parent % 2];
            if above >= entry {
                break;
            }
            work[at / 2].heap[at % 2] = above;
            at = parent;
        }
        work[at / 2].heap[at % 2] = entry;
    }

    /// The highest entry: its key and position.
    fn pop(&mut self, work: &mut [Work]) -> Option<(u32, usize)> {
        self.len = self.len.checked_sub(1)?;
        let top = work[0].heap[0];
        let last = work[self.len / 2].heap[self.len % 2];
        let mut at = 0;
        loop {
            let mut child = 2 * at + 1;
            if child >= self.len {
                break;
            }
            let mut below = work[child / 2].heap[child % 2];
            if child + 1 < self.len {
                let right = work[child.div_ceil(2)].heap[(child + 1) % 2];
                if right > below {
                    (child, below) = (child + 1, right);
                }
            }
            if below <= last {
                break;
            }
            work[at / 2].heap[at % 2] = below;
            at = child;
        }
        work[at / 2].heap[at % 2] = last;
        Some(((top >> 32) as u32, (u32::MAX - top as u32) as usize))
    }
}

impl Table<'_> {
    /// Merges a word of any length; `work` has an element for each of its bytes.
    fn merge_long(&self, word: Word<'_>, work: &mut [Work]) {
        let len = word.len();
        let mut at = 0;
        while at < len {
            let next = (at + 1..len).find(|&next| self.begins(word.byte(next))).unwrap_or(len);
            let symbol = (next - at) as u32;
            (work[at].token, work[at].len, work[next - 1].len) = (NONE, symbol, symbol);
            at = next;
        }
        // Each merge takes an entry out and puts two in, and there are fewer merges than bytes: two
        // entries for each byte are enough.
        let mut heap = Heap { len: 0 };
        let mut at = 0;
        while at < len {
            self.pair(word, work, at, &mut heap);
            at += work[at].len as usize;
        }
        while let Some((key, at)) = heap.pop(work) {
            // Entries whose symbols have been merged meanwhile are still in the heap.
            if work[at].key != key {
                continue;
            }
            let left = work[at].len as usize;
            let right = work[at + left].len as usize;
            work[at + left].key = 0;
            work[at].token = work[at].merged;
            work[at].len = (left + right) as u32;
            work[at + left + right - 1].len = (left + right) as u32;
            self.pair(word, work, at, &mut heap);
            if at > 0 {
                self.pair(word, work, at - work[at - 1].len as usize, &mut heap);
            }
        }
    }

    /// Looks up what the symbol at a position and the next one are together.
    fn pair(&self, word: Word<'_>, work: &mut [Work], at: usize, heap: &mut Heap) {
        let next = at + work[at].len as usize;
        let found = work[..word.len()].get(next).and_then(|symbol| {
            let len = next + symbol.len as usize - at;
            match at.checked_sub(word.prefix) {
                Some(start) => self.find(word.text, start, len),
                None if len > self.longest() => None,
                None => self.find_iter(core::iter::once(b' ').chain(word.text[..len - 1].iter().copied())),
            }
        });
        (work[at].key, work[at].merged) = self.key(found, next - at);
        if work[at].key != 0 {
            heap.push(work, Heap::entry(work[at].key, at));
        }
    }
}

/// Whether some piece has these two as neighbours.
#[inline(always)]
fn joined(joins: &[u32; JOINS], left: u8, right: u8) -> bool {
    let (word, bit) = join(left, right);
    joins[word] & bit != 0
}

/// The end of the word that begins at a position: no piece goes beyond it.
#[inline(always)]
fn word_end(joins: &[u32; JOINS], text: &[u8], start: usize) -> usize {
    let mut left = text[start];
    for (at, &right) in text.iter().enumerate().skip(start + 1) {
        if !continues(right) && !joined(joins, left, right) {
            return at;
        }
        left = right;
    }
    text.len()
}

impl Tokenizer<'_> {
    /// Elements of scratch memory that are enough for any text of `text_len` bytes.
    ///
    /// Only the longest word counts, and only beyond 32 bytes: where texts have spaces, less is enough.
    pub const fn scratch_len(text_len: usize) -> usize {
        let len = text_len.saturating_add(1);
        if len <= SHORT { 0 } else { len }
    }

    /// Tokens that are enough for any text of `text_len` bytes: BOS, a space, and one for each byte.
    pub const fn max_tokens(text_len: usize) -> usize {
        text_len.saturating_add(2)
    }

    /// Encodes `text`, and returns how many tokens it became; the first of them is BOS, if
    /// [`Self::adds_bos`]. No text becomes a control token, so that whoever wrote it cannot speak for others.
    ///
    /// [`Self::scratch_len`] and [`Self::max_tokens`] say how much memory is enough; less is accepted as
    /// long as it suffices for this text.
    pub fn encode(
        &self,
        text: &str,
        scratch: &mut [Work],
        tokens: &mut [u32],
    ) -> Result<usize, TokenizerError> {
        self.encode_with(text, self.add_bos, Wanted::UserDefined, scratch, tokens)
    }

    /// Encodes `text`, in which control tokens such as `<|im_start|>` stand as they are spelled: what a chat
    /// template makes of a conversation. Nothing is put before it, since templates have BOS themselves.
    ///
    /// Of memory the same is enough as for [`Self::encode`].
    pub fn encode_special(
        &self,
        text: &str,
        scratch: &mut [Work],
        tokens: &mut [u32],
    ) -> Result<usize, TokenizerError> {
        self.encode_with(text, false, Wanted::All, scratch, tokens)
    }

    fn encode_with(
        &self,
        text: &str,
        bos: bool,
        wanted: Wanted,
        scratch: &mut [Work],
        tokens: &mut [u32],
    ) -> Result<usize, TokenizerError> {
        if text.len() as u64 > u64::from(MAX_TEXT) {
            return Err(TokenizerError::TextLength { found: text.len() as u64 });
        }
        let mut output = Output { tokens, count: 0, enough: Self::max_tokens(text.len()) };
        if bos {
            output.push(self.bos)?;
        }
        let (mut start, mut at) = (0, 0);
        while at < text.len() && !self.special.is_empty(wanted) {
            if text.is_char_boundary(at)
                && let Some((token, len)) = self.special.find(&self.table.pieces, &text[at..], wanted)
            {
                self.encode_part(&text[start..at], scratch, &mut output)?;
                output.push(token)?;
                at += len;
                start = at;
            } else {
                at += 1;
            }
        }
        self.encode_part(&text[start..], scratch, &mut output)?;
        Ok(output.count)
    }

    /// Encodes a text without special tokens.
    fn encode_part(
        &self,
        part: &str,
        scratch: &mut [Work],
        output: &mut Output<'_>,
    ) -> Result<(), TokenizerError> {
        let (text, mut at) = (part.as_bytes(), 0);
        let joins = match self.split {
            Split::Joins(joins) => joins,
            Split::Words(rule) => {
                while at < text.len() {
                    let end = rule.word_end(part, at);
                    self.word(text, at, end, scratch, output)?;
                    at = end;
                }
                return Ok(());
            }
        };
        if self.add_space_prefix && !text.is_empty() {
            at = if joined(joins, b' ', text[0]) { word_end(joins, text, 0) } else { 0 };
            let word = Word { prefix: 1, text: &text[..at] };
            if word.len() <= SHORT {
                // The space and the first word are brought together where they can be looked up.
                let mut buffer = [b' '; SHORT + 8];
                buffer[1..word.len()].copy_from_slice(word.text);
                self.word(&buffer, 0, word.len(), scratch, output)?;
            } else {
                self.long_word(word, scratch, output)?;
            }
        }
        while at < text.len() {
            let end = word_end(joins, text, at);
            self.word(text, at, end, scratch, output)?;
            at = end;
        }
        Ok(())
    }

    #[inline(always)]
    fn word(
        &self,
        text: &[u8],
        start: usize,
        end: usize,
        scratch: &mut [Work],
        output: &mut Output<'_>,
    ) -> Result<(), TokenizerError> {
        if let Some(found) = self.table.find(text, start, end - start)
            && found.whole
        {
            return output.push(found.token);
        }
        if end - start > SHORT {
            return self.long_word(Word { prefix: 0, text: &text[start..end] }, scratch, output);
        }
        let symbols = self.table.merge_short(text, start, end);
        for at in 0..symbols.count {
            let (from, to) = (usize::from(symbols.starts[at]), usize::from(symbols.starts[at + 1]));
            self.symbol(symbols.tokens[at], &text[start + from..start + to], output)?;
        }
        Ok(())
    }

    fn long_word(
        &self,
        word: Word<'_>,
        scratch: &mut [Work],
        output: &mut Output<'_>,
    ) -> Result<(), TokenizerError> {
        let (found, needed) = (scratch.len(), word.len());
        let work = scratch.get_mut(..needed).ok_or(TokenizerError::ScratchMemory { found, needed })?;
        self.table.merge_long(word, work);
        let mut at = 0;
        while at < needed {
            let next = at + work[at].len as usize;
            let text = match at.checked_sub(word.prefix) {
                Some(start) => &word.text[start..next - word.prefix],
                None => b" ",
            };
            self.symbol(work[at].token, text, output)?;
            at = next;
        }
        Ok(())
    }

    /// Writes a symbol: the token that it was merged to, or a single character.
    fn symbol(&self, token: u32, text: &[u8], output: &mut Output<'_>) -> Result<(), TokenizerError> {
        if token != NONE {
            return output.push(token);
        }
        if text.len() > 1
            && let Some(found) = self.table.find(text, 0, text.len())
        {
            return output.push(found.token);
        }
        for &byte in text {
            let token = self.singles[usize::from(byte)];
            // As in SentencePiece, a run of what cannot be expressed is one unknown token.
            let again = Some(token) == self.unknown() && output.last() == Some(token);
            if token != NONE && !again {
                output.push(token)?;
            }
        }
        Ok(())
    }
}
