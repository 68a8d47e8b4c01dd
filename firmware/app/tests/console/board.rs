//! A board whose port is a script: what is typed when, and what came back.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::Instant;

use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write};
use llamita_firmware::{Card, Lent, Machine, Panel, Solo, run};
use llamita_storage::Sector;

/// When something is typed.
enum When<'s> {
    /// The console waits for a line.
    Ready,
    /// This was shown since the last step.
    Shown(&'s str),
}

type Action<'s> = Box<dyn FnMut() + 's>;

/// Something that is done, and what is typed then.
pub struct Step<'s>(When<'s>, Option<Action<'s>>, Vec<u8>);

/// Keys, when the console waits for a line.
pub fn keys<'s>(keys: impl Into<Vec<u8>>) -> Step<'s> {
    Step(When::Ready, None, keys.into())
}

/// A line, when the console waits for one.
pub fn line<'s>(text: &str) -> Step<'s> {
    keys(format!("{text}\r"))
}

/// Keys, as soon as this was shown.
pub fn during<'s>(shown: &'s str, keys: &str) -> Step<'s> {
    Step(When::Shown(shown), None, keys.into())
}

/// A line after something else was done, when the console waits for a line.
pub fn after<'s>(action: impl FnMut() + 's, text: &str) -> Step<'s> {
    Step(When::Ready, Some(Box::new(action)), format!("{text}\r").into())
}

pub struct Script<'s> {
    steps: VecDeque<Step<'s>>,
    input: VecDeque<u8>,
    output: Vec<u8>,
    /// Where the output of each step begins.
    marks: Vec<usize>,
    idle: usize,
}

impl Script<'_> {
    fn advance(&mut self) {
        let shown = &self.output[self.marks.last().copied().unwrap_or(0)..];
        let ready = shown.ends_with(b"> ")
            || (shown.ends_with(b"}\n")
                && String::from_utf8_lossy(shown).lines().last().unwrap().contains("\"event\":\"ready\""));
        let Some(Step(when, ..)) = self.steps.front() else {
            if ready {
                self.marks.push(self.output.len());
                self.input.extend(b"/quit\r");
            }
            return;
        };
        let due = match when {
            When::Ready => ready,
            When::Shown(text) => shown.windows(text.len()).any(|window| window == text.as_bytes()),
        };
        if due && let Some(Step(_, action, keys)) = self.steps.pop_front() {
            if let Some(mut action) = action {
                action();
            }
            self.marks.push(self.output.len());
            self.input.extend(keys);
        }
    }
}

impl ErrorType for Script<'_> {
    type Error = ErrorKind;
}

impl ReadReady for Script<'_> {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        if self.input.is_empty() {
            self.advance();
            self.idle += 1;
            assert!(self.idle < 1_000_000, "stuck after: {}", String::from_utf8_lossy(&self.output));
        }
        // Noise on the line, now and then.
        if self.idle % 7 == 3 { Err(ErrorKind::Other) } else { Ok(!self.input.is_empty()) }
    }
}

impl Read for Script<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        buffer[0] = self.input.pop_front().expect("reads are asked for only when one is ready");
        self.idle = 0;
        Ok(1)
    }
}

impl Write for Script<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        // Never all of it at once.
        let count = bytes.len().min(5);
        self.output.extend(&bytes[..count]);
        self.idle = 0;
        Ok(count)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        CLOCK.set(CLOCK.get().map(|ticks| ticks + Board::TICKS_PER_SECOND / 10));
        Ok(())
    }
}

thread_local! {
    /// How often the watchdog was fed.
    pub static FED: Cell<usize> = const { Cell::new(0) };
    /// The ticks of a clock that stands still but for the port, which takes a tenth of a second to send what there is;
    /// without, the time is that of the world.
    pub static CLOCK: Cell<Option<u64>> = const { Cell::new(None) };
}

pub struct Board<'s> {
    script: Script<'s>,
    panel: Option<&'s mut dyn Panel>,
}

impl<'s> Machine for Board<'s> {
    type Console = Script<'s>;
    type Team = Solo;
    const TICKS_PER_SECOND: u64 = 1_000_000_000;
    const NAME: &'static str = "a test";

    fn console(&mut self) -> &mut Script<'s> {
        &mut self.script
    }

    fn team(&self) -> Solo {
        Solo
    }

    fn ticks() -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        CLOCK.get().unwrap_or_else(|| START.get_or_init(Instant::now).elapsed().as_nanos() as u64)
    }

    fn feed() {
        FED.set(FED.get() + 1);
    }

    fn panel(&mut self) -> Option<&mut dyn Panel> {
        self.panel.as_mut().map(|panel| &mut **panel as _)
    }
}

/// What was shown: before the first step, and after each.
pub struct Shown {
    pub parts: Vec<String>,
    pub fed: usize,
}

impl Shown {
    pub fn all(&self) -> String {
        self.parts.concat()
    }

    /// The text that a step was answered by.
    pub fn story(&self, step: usize) -> String {
        let part = &self.parts[step + 1];
        let told = part.split_once("\r\n").unwrap().1.rsplit_once("\r\n[");
        told.unwrap_or_else(|| panic!("no story: {part:?}")).0.replace("\r\n", "\n")
    }
}

/// Runs a console with so much memory until the script has ended.
pub fn shown<C: Card>(
    memory: usize,
    mapped: Option<&[u8]>,
    card: Option<&C>,
    steps: impl IntoIterator<Item = Step<'static>>,
) -> Shown {
    shown_with(memory, mapped, card, steps.into_iter().collect())
}

/// The same, with a panel.
pub fn shown_on<C: Card>(
    panel: &mut dyn Panel,
    memory: usize,
    card: Option<&C>,
    steps: VecDeque<Step<'_>>,
) -> Shown {
    shown_by(Some(panel), [memory, 0], None, card, steps)
}

/// The same, where steps do something with what lives less long.
pub fn shown_with<C: Card>(
    memory: usize,
    mapped: Option<&[u8]>,
    card: Option<&C>,
    steps: VecDeque<Step<'_>>,
) -> Shown {
    shown_by(None, [memory, 0], mapped, card, steps)
}

/// The same, with a slower memory besides.
pub fn shown_beside<C: Card>(
    memories: [usize; 2],
    card: &C,
    steps: impl IntoIterator<Item = Step<'static>>,
) -> Shown {
    shown_by(None, memories, None, Some(card), steps.into_iter().collect())
}

fn shown_by<'s, C: Card>(
    panel: Option<&'s mut dyn Panel>,
    memories: [usize; 2],
    mapped: Option<&[u8]>,
    card: Option<&C>,
    steps: VecDeque<Step<'s>>,
) -> Shown {
    // Whatever was in it.
    let [mut memory, mut more] = memories.map(|bytes| vec![Sector([0xa5; 512]); bytes / 512]);
    let script = Script { steps, input: VecDeque::new(), output: Vec::new(), marks: Vec::new(), idle: 0 };
    let mut board = Board { script, panel };
    FED.set(0);
    run(&mut board, Lent { memory: &mut memory, more: &mut more, mapped }, card);
    let Script { output, marks, steps, .. } = board.script;
    assert!(steps.is_empty());
    let ends = marks.iter().copied().chain([output.len()]);
    let starts = [0].into_iter().chain(marks.iter().copied());
    // Nothing but UTF-8 is ever shown.
    let part = |(start, end): (usize, usize)| String::from_utf8(output[start..end].to_vec()).unwrap();
    Shown { parts: starts.zip(ends).map(part).collect(), fed: FED.get() }
}
