//! Text on its way to a terminal or to a host program.

use core::fmt::{self, Display, Formatter, Write};

/// Text without control characters, which a terminal might obey; lines end as terminals expect it.
pub(crate) struct Clean<T>(pub T);

impl<T: Display> Display for Clean<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(Cleaner(f), "{}", self.0)
    }
}

struct Cleaner<'a, 'f>(&'a mut Formatter<'f>);

impl Write for Cleaner<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|char| match char {
            '\n' => self.0.write_str("\r\n"),
            '\t' => self.0.write_char(char),
            _ if char.is_control() => self.0.write_char(char::REPLACEMENT_CHARACTER),
            _ => self.0.write_char(char),
        })
    }
}

/// Text as it stands between the quotes of a JSON string (RFC 8259).
pub(crate) struct Escaped<T>(pub T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(Escaper(f), "{}", self.0)
    }
}

struct Escaper<'a, 'f>(&'a mut Formatter<'f>);

impl Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|char| match char {
            '"' => self.0.write_str("\\\""),
            '\\' => self.0.write_str("\\\\"),
            '\n' => self.0.write_str("\\n"),
            '\r' => self.0.write_str("\\r"),
            '\t' => self.0.write_str("\\t"),
            // Those of Latin-1 need no escape, but a terminal that shows the lines might obey them.
            _ if char.is_control() => write!(self.0, "\\u{:04x}", char as u32),
            _ => self.0.write_char(char),
        })
    }
}

/// A number of thousandths, which needs no floats to be told.
#[derive(Clone, Copy)]
pub(crate) struct Thousandths(pub u64);

impl Display for Thousandths {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn terminals_get_nothing_to_obey() {
        assert_eq!(
            Clean("a\nb\tc\x1b[2J\x07\u{9b}é🦙").to_string(),
            "a\r\nb\tc\u{FFFD}[2J\u{FFFD}\u{FFFD}é🦙"
        );
    }

    #[test]
    fn strings_are_escaped() {
        let text = "say \"\\\" \n\r\t\x1b\0\u{9b} é🦙";
        let json = std::format!("\"{}\"", Escaped(text));
        assert!(json.chars().all(|char| !char.is_control()), "{json}");
        assert_eq!(serde_json::from_str::<std::string::String>(&json).unwrap(), text);
    }

    #[test]
    fn thousandths_have_three_digits() {
        assert_eq!(
            [0, 7, 1000, 12_345].map(|n| Thousandths(n).to_string()),
            ["0.000", "0.007", "1.000", "12.345"]
        );
    }
}
