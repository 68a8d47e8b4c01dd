//! Which models there are.

use heapless::String;
use llamita_storage::sd::{self, BlockDevice};

/// What the model in flash is called.
pub(crate) const FLASH: &str = "flash";
/// How the names of models end on a card.
const ENDING: &str = ".gguf";
/// Bytes of the longest name.
pub(crate) const NAME: usize = 128;

/// A model that was chosen: [`FLASH`], or the path of a file on the card.
pub(crate) type Name = String<NAME>;

/// A model that there is.
#[derive(Clone, Copy)]
pub(crate) struct Found<'n> {
    /// Counted from 1.
    pub number: usize,
    pub name: &'n str,
    pub bytes: u64,
}

impl Found<'_> {
    /// Whether this is what someone typed: its number, its name, or its name without the ending.
    pub fn is(&self, typed: &str) -> bool {
        let stem = self.name.len().checked_sub(ENDING.len()).and_then(|end| self.name.get(..end));
        typed.parse() == Ok(self.number)
            || typed.eq_ignore_ascii_case(self.name)
            || stem.is_some_and(|stem| self.name != FLASH && typed.eq_ignore_ascii_case(stem))
    }
}

/// Tells every model, the one in flash first, and how many there are; the error is that of the card.
pub(crate) fn each<D: BlockDevice>(
    flash: Option<&[u8]>,
    card: Option<D>,
    mut tell: impl FnMut(Found<'_>),
) -> (usize, Result<(), sd::Error<D::Error>>) {
    let mut number = 0;
    if let Some(flash) = flash {
        number += 1;
        tell(Found { number, name: FLASH, bytes: flash.len() as u64 });
    }
    let result = card.map_or(Ok(()), |card| {
        sd::list(&card, "", ENDING, |name, bytes| {
            number += 1;
            tell(Found { number, name, bytes });
        })
    });
    (number, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_a_number_and_a_name() {
        let found = Found { number: 2, name: "Tiny é.gguf", bytes: 1 };
        for typed in ["2", "tiny é.GGUF", "TINY é"] {
            assert!(found.is(typed), "{typed}");
        }
        for typed in ["1", "", "tiny", ".gguf", "22"] {
            assert!(!found.is(typed), "{typed}");
        }
        assert!(Found { name: FLASH, ..found }.is("Flash"));
        assert!(!Found { name: "é", ..found }.is(""));
    }
}
