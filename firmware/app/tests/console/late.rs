//! A card of which blocks come while the engine computes.

use std::cell::Cell;
use std::collections::VecDeque;

use llamita::CacheFormat;
use llamita_firmware::EitherCard;
use llamita_storage::sd::{BlockError, Extents, SdSource, Shared};
use llamita_storage::{Finished, Sector, Source};

use crate::board::{after, line, shown, shown_with};
use crate::card::{Broken, Card};
use crate::{NANO, golden, told};

/// The card, and what its reads do.
struct Late {
    card: Card,
    /// Nothing comes any more.
    stuck: Cell<bool>,
    /// Reads that were under way at once, at most.
    most: Cell<usize>,
}

impl Late {
    fn new() -> Self {
        let card = Card::with(&[("nano.gguf", NANO.bytes())]);
        Self { card, stuck: Cell::new(false), most: Cell::new(0) }
    }
}

impl llamita_firmware::Card for &Late {
    type Device = Card;
    type Source<'s>
        = LateSource<'s>
    where
        Self: 's;
    const BUFFERS: usize = 2;

    fn device(&self) -> &Card {
        &self.card
    }

    fn source<'s>(&'s self, extents: Extents<'s>) -> LateSource<'s> {
        LateSource { late: self, extents, under_way: VecDeque::new(), waited: false }
    }
}

/// Reads are done at the second time that somebody waits for them, and not before.
struct LateSource<'s> {
    late: &'s Late,
    extents: Extents<'s>,
    under_way: VecDeque<(u64, usize, &'s mut [Sector])>,
    waited: bool,
}

impl<'s> Source for LateSource<'s> {
    type Error = BlockError<Broken>;
    type Buffer = &'s mut [Sector];

    fn len(&self) -> u64 {
        self.extents.len()
    }

    fn start(&mut self, first: u64, count: usize, buffer: &'s mut [Sector]) {
        // Nobody may look at it before it is there.
        buffer.fill(Sector([0xA5; 512]));
        self.under_way.push_back((first, count, buffer));
        self.late.most.set(self.late.most.get().max(self.under_way.len()));
    }

    fn finish(&mut self) -> Option<Finished<&'s mut [Sector], Self::Error>> {
        self.waited = !self.waited;
        if self.waited || self.late.stuck.get() {
            return None;
        }
        let (first, count, buffer) = self.under_way.pop_front()?;
        let mut source = SdSource::new(Shared(&self.late.card), self.extents);
        source.start(first, count, buffer);
        source.finish()
    }
}

#[test]
fn reads_go_on_while_the_engine_computes() {
    let late = Late::new();
    check(&late, &&late);
}

#[test]
fn reads_go_on_in_either_place_for_a_card() {
    let (late, none) = (Late::new(), || {
        let none = Card::with(&[]);
        none.answers.set(0);
        none
    });
    check(&late, &EitherCard::new(none(), &late));
    check(&late, &EitherCard::new(&late, none()));
}

fn check(late: &Late, card: &impl llamita_firmware::Card) {
    for memory in [180 << 10, 410 << 10, 500 << 10, 1 << 20] {
        let steps = [line("/kv f32"), line("/temp 0"), line(""), line("")];
        late.most.set(0);
        let shown = shown(memory, None, Some(card), steps);
        let story = if memory < 410 << 10 {
            // There is no room for the whole context.
            shown.story(2)
        } else {
            golden("greedy")
        };
        assert!(golden("greedy").starts_with(&story) && story.len() > 50, "{memory}: {story}");
        assert_eq!([shown.story(2), shown.story(3)], [story.clone(), story], "{memory}");
        // Where all is pinned, reads are waited for one by one.
        assert_eq!(late.most.get() > 1, memory < 1 << 20, "{memory}");
    }
}

#[test]
fn reads_that_never_end_are_told() {
    let late = Late::new();
    let steps = [
        line("/temp 0"),
        line("/steps 30"),
        line("Once"),
        after(|| late.stuck.set(true), "Once"),
        line("Once"),
        after(|| late.stuck.set(false), "/model"),
        line("Once"),
        after(|| late.card.answers.set(0), "Once"),
        after(|| late.card.answers.set(usize::MAX), "/model"),
        line("Once"),
    ];
    let shown = shown_with(200 << 10, None, Some(&&late), steps.into());
    let once = told("Once", 0.0, 1, 30, CacheFormat::Q8);
    assert!(shown.parts[4].contains("(nothing came)"), "{}", shown.parts[4]);
    assert!(shown.parts[5].contains("error: there is no model"), "{}", shown.parts[5]);
    assert!(shown.parts[8].contains("error: "), "{}", shown.parts[8]);
    for step in [2, 6, 9] {
        assert_eq!(shown.story(step), once, "{step}");
    }
}
