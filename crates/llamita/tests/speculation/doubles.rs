//! Drafts and weights that do what no real ones do.

use std::fmt;

use llamita::weights::{Matrix, Norm};
use llamita::{Config, Draft, Resident, Rows, Sampler, Weights};

/// Proposes random tokens.
pub struct Random(pub u32);

impl Draft for Random {
    fn propose(&mut self, _: &[u32], _: &Sampler, out: &mut [u32]) -> usize {
        for token in out.iter_mut() {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *token = self.0 >> 22;
        }
        out.len()
    }
}

/// Knows the text, or how to miss it: what it knows goes through a function.
pub struct Oracle<'t>(pub &'t [u32], pub fn(usize, u32) -> u32);

impl Draft for Oracle<'_> {
    fn propose(&mut self, text: &[u32], _: &Sampler, out: &mut [u32]) -> usize {
        assert_eq!(text, &self.0[..text.len()], "a draft sees the text that was chosen");
        let rest = &self.0[text.len()..];
        for (i, (out, &token)) in out.iter_mut().zip(rest).enumerate() {
            *out = (self.1)(text.len() + i, token);
        }
        rest.len().min(out.len())
    }
}

/// What a card that is pulled out says.
#[derive(Debug, PartialEq)]
pub struct Unplugged;

impl fmt::Display for Unplugged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the card is gone")
    }
}

impl std::error::Error for Unplugged {}

/// Weights that fail at every call whose number from 1 is a multiple of `every`.
pub struct Failing<'a> {
    pub resident: Resident<'a>,
    pub calls: usize,
    pub every: usize,
}

impl Weights for Failing<'_> {
    type Error = Unplugged;

    fn config(&self) -> &Config {
        self.resident.config()
    }

    fn norm(&self, norm: Norm) -> &[f32] {
        self.resident.norm(norm)
    }

    fn embed(&mut self, token: u32, out: &mut [f32]) -> Result<(), Unplugged> {
        self.resident.embed(token, out).map_err(|_| Unplugged)
    }

    fn lend<const N: usize>(
        &mut self,
        matrices: [Matrix; N],
        from: [usize; N],
    ) -> Result<[Rows<'_>; N], Unplugged> {
        self.calls += 1;
        if self.calls.is_multiple_of(self.every) {
            return Err(Unplugged);
        }
        self.resident.lend(matrices, from).map_err(|_| Unplugged)
    }
}
