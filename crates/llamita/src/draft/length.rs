//! How many tokens to draft, by what passes and drafts have cost so far.

/// Passes that an average looks back on.
const WINDOW: f32 = 16.0;
/// Drafted tokens that the rate of acceptance looks back on.
const TRIALS: f32 = 64.0;
/// The first passes are in turns without a draft and with the longest, to know what both cost.
const WARM_UP: u32 = 6;
/// One pass in so many is without a draft even where drafts pay, to know what that costs.
const PLAIN: u32 = 64;
/// Tokens to draft when it may have begun to pay again.
const PROBE: usize = 4;
/// The share of the time that may go into such attempts.
const PROBE_SHARE: f32 = 1.0 / 32.0;
/// A measurement counts for at most so many times what was expected: a machine that was suspended has told
/// nothing, and one that got slower tells it again.
const SURPRISE: f32 = 4.0;

/// What a pass has shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    /// Tokens that were drafted.
    pub(crate) drafted: usize,
    /// Of these, those that were chosen.
    pub(crate) accepted: usize,
    /// Time to draft them.
    pub(crate) draft_ticks: u64,
    /// Time to compute them, and the one token that the text needs anyway.
    pub(crate) pass_ticks: u64,
}

/// Chooses the number of drafted tokens by which the expected tokens per time are most:
/// `(1 - α^(k+1)) / (1 - α)` tokens, for the rate of acceptance α, in the time `a + k (b + c)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DraftLength {
    /// The time of passes, `a + k b`.
    pass: Line,
    /// The time to draft a token, `c`, and the number of measurements in it.
    draft: f32,
    drafts: f32,
    /// Drafted tokens that were accepted, of those that were compared: each one up to the first that differs.
    accepted: f32,
    compared: f32,
    passes: u32,
    /// Tokens since the last draft, which a draft model has to catch up with; the prompt at first.
    idle: f32,
    /// Whether drafts do not pay at present.
    off: bool,
}

impl DraftLength {
    /// Nothing is known yet but the length of the prompt.
    pub(crate) const fn new(prompt: usize) -> Self {
        Self {
            pass: Line::UNKNOWN,
            draft: 0.0,
            drafts: 0.0,
            // Some confidence, which a few trials outweigh.
            accepted: 3.0,
            compared: 4.0,
            passes: 0,
            idle: prompt as f32,
            off: false,
        }
    }

    /// How many tokens to draft, at most `most`.
    pub(crate) fn choose(&mut self, most: usize) -> usize {
        if self.passes < WARM_UP {
            return if self.passes.is_multiple_of(2) { 0 } else { most };
        }
        if self.passes.is_multiple_of(PLAIN) {
            return 0;
        }
        let best = self.best(most);
        self.off = best == 0;
        if !self.off {
            return best;
        }
        let probe = most.min(PROBE);
        let cost = probe as f32 * (self.pass.slope + self.draft) + self.idle * self.draft;
        if cost <= self.idle * self.pass.at(0.0) * PROBE_SHARE { probe } else { 0 }
    }

    /// The length with the most expected tokens per time.
    fn best(&self, most: usize) -> usize {
        let rate = self.accepted / self.compared;
        let (one, further) = (self.pass.at(0.0), self.pass.slope + self.draft);
        // A draft model that is given up has a text to catch up with before it can be tried again. So doubts
        // are in favour of going on, and to begin again has to pay for catching up as well, within as many
        // tokens as there are to catch up with.
        let deviation = libm::sqrtf((rate * (1.0 - rate) + 1.0 / self.compared) / self.compared);
        let (rate, plain) =
            if self.off { (rate, one - self.draft) } else { ((rate + deviation).min(1.0), one) };
        // Expected tokens, and the probability that all drafted ones are accepted.
        let (mut tokens, mut all) = (1.0, 1.0);
        let (mut best, mut tokens_of_best, mut time_of_best) = (0, tokens, plain);
        for length in 1..=most {
            all *= rate;
            tokens += all;
            let time = one + length as f32 * further;
            if tokens * time_of_best > tokens_of_best * time {
                (best, tokens_of_best, time_of_best) = (length, tokens, time);
            }
        }
        best
    }

    /// Learns from a pass over one token and those that were drafted.
    pub(crate) fn learn(&mut self, pass: Pass) {
        self.passes = self.passes.wrapping_add(1);
        self.pass.add(pass.drafted as f32, pass.pass_ticks as f32);
        if pass.drafted == 0 {
            self.idle += 1.0;
            // A text changes: what was seen long ago shall not outweigh the next attempt.
            if self.off && self.compared > 1.0 {
                let keep = 1.0 - 1.0 / WINDOW;
                (self.accepted, self.compared) = (self.accepted * keep, self.compared * keep);
            }
            return;
        }

        // A token to catch up with is taken to cost as much as a drafted one.
        let mut ticks = pass.draft_ticks as f32 / (pass.drafted as f32 + self.idle);
        if self.drafts > 0.0 && self.draft > 0.0 {
            ticks = ticks.min(SURPRISE * self.draft);
        }
        self.drafts = (self.drafts + 1.0).min(WINDOW);
        self.draft += (ticks - self.draft) / self.drafts;
        self.idle = 0.0;

        let accepted = pass.accepted as f32;
        let compared = accepted + if pass.accepted < pass.drafted { 1.0 } else { 0.0 };
        let keep = TRIALS / (TRIALS + compared);
        self.accepted = self.accepted * keep + accepted;
        self.compared = self.compared * keep + compared;
    }
}

/// A straight line through measurements, of which late ones weigh more.
#[derive(Clone, Copy, Debug)]
struct Line {
    count: f32,
    x: f32,
    y: f32,
    /// Variance of `x`, and covariance of both.
    xx: f32,
    xy: f32,
    slope: f32,
}

impl Line {
    const UNKNOWN: Self = Self { count: 0.0, x: 0.0, y: 0.0, xx: 0.0, xy: 0.0, slope: 0.0 };
    /// So much variance of `x` weighs as much as the slope from before: it stays where `x` does.
    const INERTIA: f32 = 0.02;

    fn at(&self, x: f32) -> f32 {
        self.y + self.slope * (x - self.x)
    }

    fn add(&mut self, x: f32, mut y: f32) {
        let expected = self.at(x);
        if self.count > 0.0 && expected > 0.0 {
            y = y.min(SURPRISE * expected);
        }
        self.count = (self.count + 1.0).min(WINDOW);
        let weight = 1.0 / self.count;
        let (dx, dy) = (x - self.x, y - self.y);
        self.x += weight * dx;
        self.y += weight * dy;
        self.xx = (1.0 - weight) * (self.xx + weight * dx * dx);
        self.xy = (1.0 - weight) * (self.xy + weight * dx * dy);
        let slope = (self.xy + Self::INERTIA * self.slope) / (self.xx + Self::INERTIA);
        // A further token costs no less than nothing, and no more than the first.
        // Not `clamp`, whose panic prints floats.
        self.slope = slope.max(0.0).min(self.y / (1.0 + self.x));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text on a machine with these costs.
    struct Machine {
        one: f32,
        further: f32,
        draft: f32,
        acceptance: f32,
        random: u32,
    }

    /// What came of some tokens: time, and the number of passes with each length of draft.
    struct Outcome {
        ticks: f32,
        lengths: [usize; 9],
    }

    impl Outcome {
        /// The share of the passes that had drafts.
        fn drafting(&self) -> f32 {
            let passes: usize = self.lengths.iter().sum();
            1.0 - self.lengths[0] as f32 / passes as f32
        }
    }

    impl Machine {
        fn new(one: f32, further: f32, draft: f32, acceptance: f32) -> Self {
            Self { one, further, draft, acceptance, random: 1 }
        }

        fn random(&mut self) -> f32 {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 17;
            self.random ^= self.random << 5;
            (self.random >> 8) as f32 / 16_777_216.0
        }

        /// Goes on for so many tokens; every measurement is off by up to a tenth.
        fn go_on(&mut self, length: &mut DraftLength, tokens: usize) -> Outcome {
            let (mut told, mut outcome) = (0, Outcome { ticks: 0.0, lengths: [0; 9] });
            while told < tokens {
                let drafted = length.choose(8);
                let accepted = (0..drafted).take_while(|_| self.random() < self.acceptance).count();
                let catch_up = if drafted > 0 { length.idle } else { 0.0 };
                let draft = self.draft * (drafted as f32 + catch_up);
                let pass = self.one + self.further * drafted as f32;
                let noise = 0.9 + 0.2 * self.random();
                let (draft_ticks, pass_ticks) = ((draft * noise) as u64, (pass * noise) as u64);
                length.learn(Pass { drafted, accepted, draft_ticks, pass_ticks });
                outcome.ticks += draft + pass;
                outcome.lengths[drafted] += 1;
                told += accepted + 1;
            }
            outcome
        }

        /// The time of so many tokens with the one best length.
        fn best(&self, tokens: usize) -> f32 {
            let time = |length: i32| {
                let expected: f32 = (0..=length).map(|i| self.acceptance.powi(i)).sum();
                (self.one + length as f32 * (self.further + self.draft)) / expected
            };
            tokens as f32 * (0..=8).map(time).fold(f32::INFINITY, f32::min)
        }
    }

    #[test]
    fn the_time_is_near_the_best_whatever_the_costs() {
        for further in [0.0, 10.0, 50.0, 300.0, 1000.0] {
            for draft in [0.0, 20.0, 100.0, 400.0] {
                for acceptance in [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0] {
                    let mut machine = Machine::new(1000.0, further, draft, acceptance);
                    let outcome = machine.go_on(&mut DraftLength::new(1), 2000);
                    let ratio = outcome.ticks / machine.best(2000);
                    assert!(
                        ratio < 1.1,
                        "b {further} c {draft} α {acceptance}: {ratio} {:?}",
                        outcome.lengths
                    );
                }
            }
        }
    }

    #[test]
    fn slow_storage_drafts_long() {
        let outcome = Machine::new(1e6, 1e4, 1e4, 0.9).go_on(&mut DraftLength::new(20), 1000);
        assert!(outcome.lengths[8] * 10 > 8 * outcome.lengths.iter().sum::<usize>(), "{:?}", outcome.lengths);
    }

    #[test]
    fn nothing_is_drafted_where_it_does_not_pay() {
        let cases = [
            ("a pass over two costs as much as two", Machine::new(1e5, 1e5, 1e3, 0.9)),
            ("the draft costs as much as the text", Machine::new(1e5, 0.0, 1e5, 0.9)),
            ("guesses are wrong", Machine::new(1e5, 1e4, 1e3, 0.02)),
        ];
        for (why, mut machine) in cases {
            let mut length = DraftLength::new(20);
            machine.go_on(&mut length, 50);
            let outcome = machine.go_on(&mut length, 2000);
            assert!(outcome.drafting() < 0.1, "{why}: {:?}", outcome.lengths);
            let ratio = outcome.ticks / (2000.0 * machine.one);
            assert!(ratio < 1.05, "{why}: {ratio}");
        }
    }

    #[test]
    fn changes_are_noticed() {
        let (mut machine, mut length) = (Machine::new(1e5, 1e4, 10.0, 0.02), DraftLength::new(20));
        machine.go_on(&mut length, 500);
        // The text begins to repeat itself.
        machine.acceptance = 0.95;
        let outcome = machine.go_on(&mut length, 500);
        assert!(outcome.drafting() > 0.8, "{:?}", outcome.lengths);
        // The weights come into memory.
        (machine.one, machine.further) = (1e3, 1e3);
        machine.go_on(&mut length, 100);
        let outcome = machine.go_on(&mut length, 500);
        assert!(outcome.drafting() < 0.1, "{:?}", outcome.lengths);
        // And leave it again.
        (machine.one, machine.further) = (1e5, 1e3);
        machine.go_on(&mut length, 200);
        let outcome = machine.go_on(&mut length, 500);
        assert!(outcome.drafting() > 0.8, "{:?}", outcome.lengths);
    }

    #[test]
    fn a_machine_that_was_suspended_is_as_it_was_before() {
        let (mut machine, mut length) = (Machine::new(1e5, 1e3, 10.0, 0.8), DraftLength::new(20));
        machine.go_on(&mut length, 200);
        for drafted in [0, 4] {
            length.learn(Pass { drafted, accepted: drafted, draft_ticks: 10, pass_ticks: u64::MAX });
            machine.go_on(&mut length, 100);
            let outcome = machine.go_on(&mut length, 500);
            assert!(outcome.drafting() > 0.8, "{:?}", outcome.lengths);
        }
    }

    #[test]
    fn a_clock_that_stands_still_is_no_harm() {
        let outcome = Machine::new(0.0, 0.0, 0.0, 0.5).go_on(&mut DraftLength::new(1), 500);
        assert!(outcome.lengths.iter().sum::<usize>() <= 500);
        let mut length = DraftLength::new(1);
        assert_eq!((0..20).map(|_| length.choose(0)).max(), Some(0));
    }
}
