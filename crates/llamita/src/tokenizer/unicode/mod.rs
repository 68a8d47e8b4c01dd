//! Classes of characters: what the rules of pre-tokenizers tell apart.
//!
//! The table takes 4.1 KB: a run of characters of one class is one number of 16 bits. It is written by the
//! test `unicode`, from the tables of the `regex-syntax` crate.

mod runs;

use runs::RUNS;

/// A class of characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Everything else: symbols, marks, control characters, what is not assigned.
    Other,
    /// `\p{L}`.
    Letter,
    /// `\p{N}`.
    Number,
    /// `\s`.
    Space,
    /// `\p{P}`.
    Punctuation,
}

/// Runs between two entries of [`STARTS`].
const STRIDE: usize = 32;

/// The first character of every [`STRIDE`]th run.
static STARTS: [u32; RUNS.len().div_ceil(STRIDE)] = {
    let mut starts = [0; RUNS.len().div_ceil(STRIDE)];
    let (mut run, mut start) = (0, 0);
    while run < RUNS.len() {
        if run % STRIDE == 0 {
            starts[run / STRIDE] = start;
        }
        start += len(RUNS[run]);
        run += 1;
    }
    starts
};

/// The classes of ASCII, which most text is.
static ASCII: [Class; 128] = {
    let mut classes = [Class::Other; 128];
    let (mut run, mut at) = (0, 0);
    while at < 128 {
        let mut left = len(RUNS[run]);
        while left > 0 && at < 128 {
            classes[at] = class_of(RUNS[run]);
            (at, left) = (at + 1, left - 1);
        }
        run += 1;
    }
    classes
};

/// Characters of a run.
const fn len(run: u16) -> u32 {
    (run >> 3) as u32
}

const fn class_of(run: u16) -> Class {
    match run & 7 {
        1 => Class::Letter,
        2 => Class::Number,
        3 => Class::Space,
        4 => Class::Punctuation,
        _ => Class::Other,
    }
}

impl Class {
    /// The class of a character.
    pub(super) fn of(character: char) -> Self {
        let character = u32::from(character);
        if let Some(&class) = ASCII.get(character as usize) {
            return class;
        }
        let block = STARTS.partition_point(|&start| start <= character) - 1;
        let mut end = STARTS[block];
        for &run in RUNS.iter().skip(block * STRIDE).take(STRIDE) {
            end += len(run);
            if character < end {
                return class_of(run);
            }
        }
        // Beyond the last run there is nothing but other characters.
        Self::Other
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::path::Path;

    use regex_syntax::hir::{Class as HirClass, HirKind};

    use super::*;

    /// The class of every character, as a regular expression has it.
    fn expected() -> Vec<u8> {
        let mut classes = vec![0; 0x11_0000];
        for (number, pattern) in [r"\p{L}", r"\p{N}", r"\s", r"\p{P}"].into_iter().enumerate() {
            let hir = regex_syntax::parse(pattern).unwrap();
            let HirKind::Class(HirClass::Unicode(class)) = hir.kind() else { panic!("{pattern}") };
            for range in class.ranges() {
                let range = range.start() as usize..=range.end() as usize;
                for class in &mut classes[range] {
                    assert_eq!(*class, 0, "the classes are apart");
                    *class = number as u8 + 1;
                }
            }
        }
        classes
    }

    /// Writes the table anew where it is not what it should be.
    #[test]
    fn the_table_is_that_of_unicode() {
        let classes = expected();
        let last = classes.iter().rposition(|&class| class != 0).unwrap();
        let mut runs: Vec<u16> = Vec::new();
        for run in classes[..=last].chunk_by(|a, b| a == b) {
            for part in run.chunks(usize::from(u16::MAX >> 3)) {
                runs.push((part.len() as u16) << 3 | u16::from(run[0]));
            }
        }
        if runs == RUNS {
            return;
        }
        let mut source = String::from(
            "//! Written by the test `the_table_is_that_of_unicode`.\n\n\
             /// Runs of characters from 0 on: their number, and in the lowest three bits their class.\n\
             #[rustfmt::skip]\n",
        );
        write!(source, "pub(super) static RUNS: [u16; {}] = [", runs.len()).unwrap();
        for line in runs.chunks(18) {
            let numbers: Vec<_> = line.iter().map(u16::to_string).collect();
            write!(source, "\n    {},", numbers.join(", ")).unwrap();
        }
        source += "\n];\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tokenizer/unicode/runs.rs");
        std::fs::write(&path, source).unwrap();
        panic!("{} was out of date and has been written anew: run the tests again", path.display());
    }

    #[test]
    fn every_character_has_its_class() {
        for (character, expected) in (0..).zip(expected()) {
            if let Some(character) = char::from_u32(character) {
                assert_eq!(Class::of(character) as u8, expected, "{character:?}");
            }
        }
    }
}
