//! A board's console, for somebody at a terminal and for a pipe.

use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossterm::terminal;

use crate::error::{Error, Result};
use crate::output;
use crate::serial::Port;
use crate::transcript::Transcript;

/// Ctrl-], the key that leaves the console.
const LEAVE: u8 = 0x1D;
/// Ctrl-U, for which the board clears the line and shows its prompt anew, and which means nothing to it elsewhere.
const REDRAW: u8 = 0x15;

/// How long it is silent behind a prompt that is no part of a story.
const SETTLED: Duration = Duration::from_millis(200);
/// How long a board that does not show its prompt is waited for, before it is asked all the same.
const START: Duration = Duration::from_secs(3);

/// Connects a terminal to a board, until a key is pressed for that.
pub fn interact(mut port: Port, name: &str) -> Result<()> {
    output::note(&format!("{name}: Ctrl-C stops a story, Ctrl-] leaves the console"));
    let mut keys = port.try_clone().map_err(|error| gone(name, &error))?;
    let raw = RawTerminal::enable()?;
    let left = Arc::new(AtomicBool::new(false));
    let leave = Arc::clone(&left);
    // It waits for keys until the program ends.
    thread::spawn(move || {
        // A port that is gone is told of where it is read.
        let _ = keys.write_all(&[REDRAW]);
        let mut bytes = [0; 256];
        while let Ok(count @ 1..) = io::stdin().read(&mut bytes) {
            let typed = &bytes[..count];
            let end = typed.iter().position(|&key| key == LEAVE);
            let _ = keys.write_all(&typed[..end.unwrap_or(count)]);
            if end.is_some() {
                break;
            }
        }
        leave.store(true, Ordering::Release);
    });
    let mut bytes = [0; 4096];
    while !left.load(Ordering::Acquire) {
        let count = read(&mut port, name, &mut bytes)?;
        show(&bytes[..count])?;
    }
    drop(raw);
    show(b"\n")
}

/// Gives a board the lines of standard input, each when it has answered the one before; its text goes to standard
/// output. A board that says nothing for so long is an error.
pub fn pipe(port: Port, name: &str, timeout: Duration) -> Result<()> {
    let mut pipe = Pipe { port, name, timeout, transcript: Transcript::default() };
    pipe.send(&[REDRAW])?;
    pipe.wait(Some(START))?;
    for line in io::stdin().lock().split(b'\n') {
        let line = line.map_err(|error| {
            Error::failure(format_args!("cannot read standard input ({error}): check its source"))
        })?;
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        pipe.transcript.ask(line);
        pipe.send(&[line, b"\r"].concat())?;
        pipe.wait(None)?;
    }
    Ok(())
}

struct Pipe<'n> {
    port: Port,
    name: &'n str,
    timeout: Duration,
    transcript: Transcript,
}

impl Pipe<'_> {
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.port.write_all(bytes).map_err(|error| gone(self.name, &error))
    }

    /// Passes on what the board says, until it waits for a line; or until `start` has passed, if it says nothing at all.
    fn wait(&mut self, start: Option<Duration>) -> Result<()> {
        let (mut bytes, mut text) = ([0; 4096], Vec::new());
        let (mut last, mut silent) = (Instant::now(), true);
        loop {
            let count = read(&mut self.port, self.name, &mut bytes)?;
            if count > 0 {
                self.transcript.hear(&bytes[..count], &mut text);
                show(&text)?;
                text.clear();
                (last, silent) = (Instant::now(), false);
            }
            let silence = last.elapsed();
            if self.transcript.waits_for_line() && silence >= SETTLED
                || silent && start.is_some_and(|start| silence >= start)
            {
                return Ok(());
            }
            if silence >= self.timeout {
                return Err(Error::failure(format_args!(
                    "{}: the board has said nothing for {} seconds: press its RESET, check --port and --baud, or give it \
                     more with --timeout",
                    self.name,
                    self.timeout.as_secs()
                )));
            }
        }
    }
}

/// Reads what there is; nothing after a while without any.
fn read(port: &mut Port, name: &str, bytes: &mut [u8]) -> Result<usize> {
    match port.read(bytes) {
        Ok(0) => Err(gone(name, &"it has been closed")),
        Ok(count) => Ok(count),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(0)
        }
        Err(error) => Err(gone(name, &error)),
    }
}

fn show(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Error::output)
}

fn gone(name: &str, error: &dyn std::fmt::Display) -> Error {
    Error::failure(format_args!("{name} is gone ({error}): connect the board again, and check its cable"))
}

/// A terminal that gives every key as it is typed, until this is dropped.
struct RawTerminal;

impl RawTerminal {
    fn enable() -> Result<Self> {
        terminal::enable_raw_mode().map(|()| Self).map_err(|error| {
            Error::failure(format_args!("the terminal cannot be set up ({error}): pipe lines in instead"))
        })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // There is nothing else to be done for it.
        let _ = terminal::disable_raw_mode();
    }
}
