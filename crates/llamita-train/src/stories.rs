//! Texts as the tokens that a model is trained with.

use std::ops::Range;

use anyhow::{Result, ensure};
use llamita_convert::Vocabulary;
use llamita_convert::stories::split;
use llamita_convert::vocabulary::{Encoder, Scratch};

/// Stories as tokens, each with BOS before it.
#[derive(Clone, Default)]
pub struct Stories {
    tokens: Vec<u32>,
    ends: Vec<usize>,
    /// Bytes of their texts.
    pub bytes: usize,
}

impl Stories {
    /// Encodes the stories of some texts.
    pub fn encode(vocabulary: &Vocabulary, texts: &[String]) -> Result<Self> {
        let bos = vocabulary.bos.unwrap_or(1);
        let mut encoder = Encoder::new(vocabulary)?;
        let tokenizer = encoder.tokenizer()?;
        let mut scratch = Scratch::default();
        let mut stories = Self::default();
        for story in texts.iter().flat_map(|text| split(text)) {
            stories.tokens.push(bos);
            stories.tokens.extend(scratch.encode(&tokenizer, story)?);
            stories.ends.push(stories.tokens.len());
            stories.bytes += story.len();
        }
        ensure!(!stories.ends.is_empty(), "the texts have no story, expected one at least: name others");
        Ok(stories)
    }

    /// These, and others after them.
    pub fn and(mut self, others: &Self) -> Self {
        let before = self.tokens.len();
        self.tokens.extend(&others.tokens);
        self.ends.extend(others.ends.iter().map(|end| before + end));
        self.bytes += others.bytes;
        self
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Their tokens, BOS included.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    fn range(&self, story: usize) -> Range<usize> {
        let start = story.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[story]
    }
}

/// An endless stream of stories, all of them again and again, in a new order each time.
///
/// What is at a place of it depends on nothing but the seed: training that is resumed goes on where it was.
pub struct Stream {
    stories: Stories,
    seed: u64,
    /// The round whose order `tokens` have.
    round: Option<u64>,
    tokens: Vec<u32>,
}

impl Stream {
    /// A stream of stories.
    pub const fn new(stories: Stories, seed: u64) -> Self {
        Self { stories, seed, round: None, tokens: Vec::new() }
    }

    /// Tokens of a round.
    pub fn tokens(&self) -> usize {
        self.stories.tokens()
    }

    /// Appends the tokens from a place on.
    pub fn read(&mut self, place: u64, count: usize, out: &mut Vec<u32>) {
        let len = self.stories.tokens() as u64;
        let (mut round, mut start) = (place / len, (place % len) as usize);
        let mut left = count;
        while left > 0 {
            self.shuffle(round);
            let part = &self.tokens[start..self.tokens.len().min(start + left)];
            out.extend(part);
            left -= part.len();
            (round, start) = (round + 1, 0);
        }
    }

    fn shuffle(&mut self, round: u64) {
        if self.round.replace(round) == Some(round) {
            return;
        }
        let mut order: Vec<usize> = (0..self.stories.count()).collect();
        fastrand::Rng::with_seed(self.seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15)).shuffle(&mut order);
        self.tokens.clear();
        for story in order {
            self.tokens.extend(&self.stories.tokens[self.stories.range(story)]);
        }
    }
}

/// Sequences of one length, and the token that follows each of theirs: (sequences, length) each.
pub struct Batch {
    /// What the model reads.
    pub given: Vec<u32>,
    /// What it should predict.
    pub predicted: Vec<u32>,
}

impl Batch {
    /// Consecutive sequences of a stream, from a place on.
    pub fn read(stream: &mut Stream, place: u64, sequences: usize, length: usize) -> Self {
        let mut tokens = Vec::new();
        stream.read(place, sequences * length + 1, &mut tokens);
        Self {
            predicted: tokens[1..].to_vec(),
            given: {
                tokens.pop();
                tokens
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stories() -> Stories {
        // Story n has n tokens that are n.
        let tokens = (1..=9).flat_map(|n| std::iter::repeat_n(n, n as usize)).collect();
        let ends = (1..=9).map(|n| n * (n + 1) / 2).collect();
        Stories { tokens, ends, bytes: 0 }
    }

    #[test]
    fn every_round_has_every_story_whole() {
        let mut stream = Stream::new(stories(), 7);
        let mut rounds = Vec::new();
        for round in 0..3 {
            let mut tokens = Vec::new();
            stream.read(45 * round, 45, &mut tokens);
            let order: Vec<u32> = tokens.chunk_by(|a, b| a == b).map(|story| story[0]).collect();
            assert!(tokens.chunk_by(|a, b| a == b).all(|story| story.len() == story[0] as usize));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(1..=9));
            rounds.push(order);
        }
        assert!(rounds[0] != rounds[1] && rounds[1] != rounds[2]);
    }

    #[test]
    fn a_place_has_the_same_tokens_however_it_is_reached() {
        let mut all = Vec::new();
        Stream::new(stories(), 3).read(0, 200, &mut all);
        for place in [0, 1, 44, 45, 46, 100] {
            let mut tokens = vec![5];
            Stream::new(stories(), 3).read(place, 90, &mut tokens);
            assert_eq!(tokens[1..], all[place as usize..][..90]);
        }
    }

    #[test]
    fn what_is_predicted_follows_what_is_given() {
        let mut all = Vec::new();
        Stream::new(stories(), 3).read(10, 13, &mut all);
        let batch = Batch::read(&mut Stream::new(stories(), 3), 10, 3, 4);
        assert_eq!((&batch.given[..], &batch.predicted[..]), (&all[..12], &all[1..]));
    }

    #[test]
    fn extra_stories_come_after_the_others() {
        let both = stories().and(&stories());
        assert_eq!((both.count(), both.tokens()), (18, 90));
        assert_eq!(both.range(9), 45..46);
        assert_eq!(both.tokens[both.range(17)], [9; 9]);
    }
}
