//! A line that is typed: keys in, text out.

use heapless::{Deque, Vec};
use llamita::Utf8Stream;

/// Bytes of the longest line.
pub(crate) const LINE: usize = 512;
/// Lines that are remembered.
const LINES: usize = 4;

/// What stands before a line that is typed.
pub(crate) const PROMPT: &str = "> ";
/// The key that stops things.
pub(crate) const CTRL_C: u8 = 0x03;

const BELL: &str = "\x07";
/// Goes to the begin of the line and clears it.
const CLEAR: &str = "\r\x1b[K";

/// Bytes of a line, not always UTF-8.
pub(crate) type Line = Vec<u8, LINE>;

/// The line so far, and those before it.
#[derive(Default)]
pub(crate) struct Editor {
    line: Line,
    /// The oldest first.
    history: Deque<Line, LINES>,
    /// How many lines back the one is that is shown; 0 for a new one.
    back: usize,
    escape: Escape,
    /// Gathers whole characters of what is typed, so that no half ones are shown.
    echo: Utf8Stream,
    /// Whether the rest of a character is to be dropped, as there was no room for it.
    dropping: bool,
    /// Whether something was typed for which there was no room.
    cut: bool,
    /// Whether the last key ended a line by a carriage return, which a newline may follow.
    returned: bool,
}

/// How far a sequence of keys has come that terminals send for arrows and their like.
#[derive(Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Begun,
    /// After ESC and [ or O.
    Inside,
}

/// A line that is complete.
pub(crate) struct Typed {
    pub line: Line,
    /// Whether there was no room for all of it.
    pub cut: bool,
}

impl Editor {
    /// Takes a key, and shows what it does; gives the line once it is complete.
    pub fn key(&mut self, key: u8, show: &mut impl FnMut(&str)) -> Option<Typed> {
        let newline = key == b'\n' && core::mem::take(&mut self.returned);
        self.returned = false;
        if newline {
            return None;
        }
        match core::mem::take(&mut self.escape) {
            Escape::Begun if matches!(key, b'[' | b'O') => {
                self.escape = Escape::Inside;
                return None;
            }
            // A key with Alt does nothing.
            Escape::Begun if key >= b' ' => return None,
            Escape::Inside if (b' '..b'@').contains(&key) => {
                self.escape = Escape::Inside;
                return None;
            }
            Escape::Inside if key >= b' ' => {
                match key {
                    b'A' => self.recall(self.back + 1, show),
                    b'B' => self.recall(self.back.saturating_sub(1), show),
                    _ => (),
                }
                return None;
            }
            _ => (),
        }
        match key {
            b'\r' | b'\n' => {
                self.returned = key == b'\r';
                show("\r\n");
                return Some(self.complete());
            }
            0x1b => self.escape = Escape::Begun,
            0x08 | 0x7f => self.erase(show),
            0x15 => {
                self.clear();
                self.redraw(show);
            }
            CTRL_C => {
                self.clear();
                show("^C\r\n");
                show(PROMPT);
            }
            b'\t' => self.insert(b' ', show),
            0..b' ' => (),
            _ => self.insert(key, show),
        }
        None
    }

    fn insert(&mut self, byte: u8, show: &mut impl FnMut(&str)) {
        let continues = byte & 0xc0 == 0x80;
        if continues && self.dropping {
            return;
        }
        // A character has to fit as a whole.
        let len = match byte {
            0xf0.. => 4,
            0xe0.. => 3,
            0xc0.. => 2,
            _ => 1,
        };
        self.dropping = self.line.len() + len > LINE;
        if self.dropping {
            self.cut = true;
            show(BELL);
        } else if self.line.push(byte).is_ok() {
            self.echo.push(&[byte], visibly(show));
        }
    }

    /// Takes the last character away.
    fn erase(&mut self, show: &mut impl FnMut(&str)) {
        let mut last = self.line.pop();
        let narrow = last.is_none_or(|byte| byte.is_ascii());
        if last.is_none() {
            show(BELL);
            return;
        }
        while let Some(byte) = last
            && byte & 0xc0 == 0x80
        {
            last = self.line.pop();
        }
        self.echo = Utf8Stream::new();
        if narrow {
            show("\x08 \x08");
        } else {
            // Nobody knows how wide it was.
            self.redraw(show);
        }
    }

    fn clear(&mut self) {
        self.line.clear();
        self.back = 0;
        self.echo = Utf8Stream::new();
        (self.dropping, self.cut) = (false, false);
    }

    fn redraw(&mut self, show: &mut impl FnMut(&str)) {
        show(CLEAR);
        show(PROMPT);
        self.echo = Utf8Stream::new();
        self.echo.push(&self.line, visibly(show));
    }

    /// Shows the line that is so far back.
    fn recall(&mut self, back: usize, show: &mut impl FnMut(&str)) {
        if back > self.history.len() || back == self.back {
            show(BELL);
            return;
        }
        self.clear();
        self.back = back;
        if let Some(line) = self.history.iter().rev().nth(back.wrapping_sub(1)) {
            self.line.clone_from(line);
        }
        self.redraw(show);
    }

    /// Ends the line, and remembers it.
    fn complete(&mut self) -> Typed {
        let typed = Typed { line: self.line.clone(), cut: self.cut };
        self.clear();
        if !typed.line.is_empty() && self.history.back() != Some(&typed.line) {
            if self.history.is_full() {
                self.history.pop_front();
            }
            // There is room now.
            let _ = self.history.push_back(typed.line.clone());
        }
        typed
    }
}

/// Shows text, whose control characters a terminal might obey: those of Latin-1 are no keys.
fn visibly(show: &mut impl FnMut(&str)) -> impl FnMut(&str) {
    |text| {
        for (index, part) in text.split(char::is_control).enumerate() {
            if index > 0 {
                show("\u{FFFD}");
            }
            show(part);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::*;

    /// Types keys; gives the lines, and what was shown.
    fn typed(editor: &mut Editor, keys: &[u8]) -> (Vec<String>, String) {
        let (mut lines, mut shown) = (Vec::new(), String::new());
        for &key in keys {
            if let Some(typed) = editor.key(key, &mut |text| shown.push_str(text)) {
                lines.push(String::from_utf8_lossy(&typed.line).to_string());
            }
        }
        (lines, shown)
    }

    #[test]
    fn lines_end_by_any_newline() {
        let (lines, shown) = typed(&mut Editor::default(), b"a\rb\r\nc\n\nd\r\r\n");
        assert_eq!(lines, ["a", "b", "c", "", "d", ""]);
        assert_eq!(shown, "a\r\nb\r\nc\r\n\r\nd\r\n\r\n");
    }

    #[test]
    fn keys_edit_the_line() {
        for (keys, line) in [
            ("ab\x08c\r", "ac"),
            ("é\x7fx\r", "x"),
            ("a🦙\x7fb\r", "ab"),
            ("\x7f\x7fa\r", "a"),
            ("gone\x15new\r", "new"),
            ("gone\x03new\r", "new"),
            ("a\tb\x01\x02\r", "a b"),
            ("a\x1b[Cb\x1b[3~c\x1bxd\x1bOCe\r", "abcde"),
            ("a\x1b\r", "a"),
        ] {
            assert_eq!(typed(&mut Editor::default(), keys.as_bytes()).0, [line], "{keys:?}");
        }
    }

    #[test]
    fn arrows_go_through_the_last_lines() {
        let mut editor = Editor::default();
        typed(&mut editor, b"one\rtwo\rthree\rthree\rfour\rfive\r");
        let (up, down) = ("\x1b[A", "\x1b[B");
        for (keys, line) in [
            (String::from(up), "five"),
            (up.repeat(2), "four"),
            // The last four are known, and no more.
            (up.repeat(9), "three"),
        ] {
            let mut editor = Editor::default();
            typed(&mut editor, b"one\rtwo\rthree\rthree\rfour\rfive\r");
            let expected = if keys == up.repeat(9) { "two" } else { line };
            assert_eq!(typed(&mut editor, (keys + "\r").as_bytes()).0, [expected]);
        }
        assert_eq!(typed(&mut editor, [up, up, up, down, "!\r"].concat().as_bytes()).0, ["four!"]);
        assert_eq!(typed(&mut editor, [up, down, "x\r"].concat().as_bytes()).0, ["x"]);
    }

    #[test]
    fn what_has_no_room_is_cut_at_a_whole_character() {
        let mut editor = Editor::default();
        let long = "é".repeat(LINE);
        let (lines, shown) = typed(&mut editor, ["x", &long, "y\r"].concat().as_bytes());
        assert_eq!(lines, [String::from("x") + &"é".repeat(LINE / 2 - 1) + "y"]);
        assert!(shown.contains(BELL));
        assert_eq!(typed(&mut editor, b"next\r").0, ["next"]);
        let (_, shown) = typed(&mut editor, &b"a".repeat(3 * LINE));
        assert_eq!(shown.matches(BELL).count(), 2 * LINE);
        let cut = editor.key(b'\r', &mut |_| ()).unwrap();
        assert!(cut.cut && cut.line.len() == LINE);
        assert!(!editor.key(b'\r', &mut |_| ()).unwrap().cut);
    }

    #[test]
    fn any_bytes_are_shown_as_text() {
        let mut random = 1_u32;
        let mut editor = Editor::default();
        for _ in 0..100_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // What is shown is `str`, so that it only has to end well.
            editor.key((random >> 24) as u8, &mut |_| ());
        }
        let (lines, shown) = typed(&mut Editor::default(), b"a\xffb\xe2\x82\r");
        assert_eq!((lines[0].as_str(), shown.as_str()), ("a\u{FFFD}b\u{FFFD}", "a\u{FFFD}b\r\n"));
        assert_eq!(typed(&mut Editor::default(), "é\u{9b}🦙".as_bytes()).1, "é\u{FFFD}🦙");
    }
}
