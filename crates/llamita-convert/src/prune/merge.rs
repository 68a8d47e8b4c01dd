//! Of what a token is merged last.

use std::collections::HashMap;

use crate::vocabulary::{Vocabulary, VocabularyModel, token_type};

/// The order in which a vocabulary merges neighbours.
pub struct Merges<'v> {
    /// The tokens that text becomes, by their spelling.
    tokens: HashMap<&'v [u8], u32>,
    order: Order<'v>,
}

enum Order<'v> {
    /// The token with the highest score is made first.
    Scores(&'v [f32]),
    /// The rank of each pair; the lowest is merged first.
    Ranks(HashMap<(&'v [u8], &'v [u8]), usize>),
}

/// What a token falls into if it is taken out of its vocabulary.
pub struct Parts {
    /// Tokens that it is merged of.
    pub tokens: Vec<u32>,
    /// How many tokens stand in its place, of which some may be bytes.
    pub count: usize,
}

impl<'v> Merges<'v> {
    /// The order of a vocabulary.
    pub fn new(vocabulary: &'v Vocabulary) -> Self {
        let mut tokens = HashMap::new();
        for (id, token) in (0..).zip(&vocabulary.tokens) {
            if is_text(vocabulary, id) {
                tokens.entry(token.as_slice()).or_insert(id);
            }
        }
        let order = match vocabulary.model {
            VocabularyModel::Llama => Order::Scores(&vocabulary.scores),
            VocabularyModel::Gpt2 => {
                let pairs = vocabulary.merges.iter().filter_map(|merge| merge.split_once(' '));
                let pairs = pairs.map(|(left, right)| (left.as_bytes(), right.as_bytes()));
                Order::Ranks(pairs.zip(0..).collect())
            }
        };
        Self { tokens, order }
    }

    /// How soon two neighbours are merged, if they are at all: those with the highest number first.
    fn urgency(&self, left: &[u8], right: &[u8], whole: &[u8]) -> Option<f64> {
        let token = *self.tokens.get(whole)?;
        match &self.order {
            Order::Scores(scores) => Some(scores[token as usize].into()),
            Order::Ranks(ranks) => ranks.get(&(left, right)).map(|&rank| -(rank as f64)),
        }
    }

    /// What is left of a spelling before the last merge, or in the end, if it never becomes one token.
    pub fn parts(&self, spelling: &[u8]) -> Parts {
        let Ok(text) = str::from_utf8(spelling) else {
            return Parts { tokens: Vec::new(), count: spelling.len() };
        };
        let mut ends: Vec<usize> = text.char_indices().map(|(start, c)| start + c.len_utf8()).collect();
        loop {
            let mut best: Option<(f64, usize)> = None;
            let mut start = 0;
            for (at, pair) in ends.windows(2).enumerate() {
                let [middle, end] = [pair[0], pair[1]];
                let whole = &spelling[start..end];
                let found = self.urgency(&spelling[start..middle], &spelling[middle..end], whole);
                if let Some(urgency) = found.filter(|&found| best.is_none_or(|(known, _)| found > known)) {
                    best = Some((urgency, at));
                }
                start = middle;
            }
            match best {
                Some((_, at)) if ends.len() > 2 => _ = ends.remove(at),
                _ => break,
            }
        }
        let mut parts = Parts { tokens: Vec::new(), count: 0 };
        let mut start = 0;
        for end in ends {
            match self.tokens.get(&spelling[start..end]) {
                Some(&token) => {
                    parts.tokens.push(token);
                    parts.count += 1;
                }
                // A character without a token of its own is written in bytes.
                None => parts.count += end - start,
            }
            start = end;
        }
        parts
    }
}

/// Whether text becomes this token.
pub fn is_text(vocabulary: &Vocabulary, id: u32) -> bool {
    matches!(vocabulary.types[id as usize], token_type::NORMAL | token_type::USER_DEFINED)
}
