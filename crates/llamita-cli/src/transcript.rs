//! What a board's console says, as text: without its prompts, without the echo of what was sent, and without what is for
//! terminals only.

/// What stands before a line that is typed.
const PROMPT: &[u8] = b"> ";
/// How a line begins by which the board says to programs that it waits for one.
const READY: &[u8] = b"{\"event\":\"ready\"";

/// The text so far.
pub struct Transcript {
    /// The line, as much of it as is compared with something.
    line: Vec<u8>,
    /// A line that may be all prompt and echo is held back.
    held: bool,
    /// The prompt, and what was sent.
    echo: Vec<u8>,
    /// Nothing has come since.
    asked: bool,
    /// The board has said that it waits.
    ready: bool,
    /// After a carriage return: a newline follows, or the line is written anew.
    returned: bool,
    /// Inside a sequence for terminals.
    escape: bool,
}

impl Default for Transcript {
    fn default() -> Self {
        Self {
            line: Vec::new(),
            held: true,
            echo: PROMPT.to_vec(),
            asked: false,
            ready: false,
            returned: false,
            escape: false,
        }
    }
}

impl Transcript {
    /// A line is sent, which the board may echo.
    pub fn ask(&mut self, line: &[u8]) {
        self.echo = [PROMPT, line].concat();
        (self.asked, self.ready) = (true, false);
    }

    /// Whether the board waits for a line, if it says nothing more: a story may have a prompt in it.
    pub fn waits_for_line(&self) -> bool {
        self.ready || (self.held && !self.asked && self.line == PROMPT)
    }

    /// Adds to `text` what of these bytes is text.
    pub fn hear(&mut self, bytes: &[u8], text: &mut Vec<u8>) {
        for &byte in bytes {
            match byte {
                _ if self.escape => self.escape = !byte.is_ascii_alphabetic(),
                0x1B => self.escape = true,
                b'\r' => self.returned = true,
                b'\n' => self.end_line(text),
                // A control character.
                0..b' ' | 0x7F if byte != b'\t' => (),
                _ => self.add(byte, text),
            }
        }
    }

    fn add(&mut self, byte: u8, text: &mut Vec<u8>) {
        if std::mem::take(&mut self.returned) {
            self.begin_line();
        }
        if self.held || self.line.len() < READY.len() {
            self.line.push(byte);
        }
        if !self.held {
            text.push(byte);
        } else if !self.echo.starts_with(&self.line) {
            self.held = false;
            text.extend(&self.line);
        }
    }

    fn end_line(&mut self, text: &mut Vec<u8>) {
        let is_echo = self.held && self.asked && self.line == self.echo;
        if self.held && !is_echo {
            text.extend(&self.line);
        }
        if !is_echo {
            text.push(b'\n');
        }
        self.ready |= self.line.starts_with(READY);
        (self.asked, self.returned) = (false, false);
        self.begin_line();
    }

    fn begin_line(&mut self) {
        self.line.clear();
        self.held = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of what a board says, in whatever pieces it comes.
    fn text(transcript: &mut Transcript, said: &str) -> String {
        let mut text = Vec::new();
        for byte in said.bytes() {
            transcript.hear(&[byte], &mut text);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn only_the_story_is_text() {
        let mut transcript = Transcript::default();
        assert_eq!(text(&mut transcript, "llamita on a board\r\n> "), "llamita on a board\n");
        assert!(transcript.waits_for_line());
        assert_eq!(text(&mut transcript, "\r\x1b[K> "), "");
        assert!(transcript.waits_for_line());
        transcript.ask(b"Once");
        assert!(!transcript.waits_for_line());
        assert_eq!(text(&mut transcript, "Once\r\nOnce upon a time\x07 \u{e9}"), "Once upon a time \u{e9}");
        assert!(!transcript.waits_for_line());
        assert_eq!(text(&mut transcript, "\r\n\r\n3 tok/s\r\n"), "\n\n3 tok/s\n");
        assert!(!transcript.waits_for_line());
        assert_eq!(text(&mut transcript, "> "), "");
        assert!(transcript.waits_for_line());
        transcript.ask(b"");
        assert_eq!(text(&mut transcript, "\r\nThe end\r\n> "), "The end\n");
        assert!(transcript.waits_for_line());
    }

    #[test]
    fn a_story_may_look_like_a_prompt() {
        let mut transcript = Transcript::default();
        transcript.ask(b"x");
        assert_eq!(text(&mut transcript, "> x\r\n> > x\n>\n> x\n"), "> > x\n>\n> x\n");
        assert!(!transcript.waits_for_line());
    }

    #[test]
    fn events_are_lines_and_are_not_echoed() {
        let mut transcript = Transcript::default();
        transcript.ask(b"/json on");
        let events = "> /json on\r\nJSON on\r\n{\"event\":\"ready\",\"model\":null}\n";
        assert_eq!(text(&mut transcript, events), "JSON on\n{\"event\":\"ready\",\"model\":null}\n");
        assert!(transcript.waits_for_line());
        transcript.ask(b"Once");
        assert!(!transcript.waits_for_line());
        let events = "{\"event\":\"text\",\"text\":\"Once\"}\n";
        assert_eq!(text(&mut transcript, events), events);
        assert!(!transcript.waits_for_line());
    }
}
