//! An emulated board, as somebody sees it who sits at its serial port.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// No board takes longer for a story, even on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(420);
/// What a board says of a panic or a fault before it stops for ever.
const LAST_WORDS: &str = "\nstopped: ";
/// How long it takes to say them.
const LAST_MOMENTS: Duration = Duration::from_secs(2);
/// Keys that lead from the board's console to the emulator's, and back.
const SWITCH: &str = "\x01c";
/// What the emulator says when it waits for a command.
const EMULATOR_PROMPT: &str = "(qemu) ";

/// An emulator that runs, and is ended with this value.
pub struct Emulator {
    child: Child,
    keys: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// What it has said since a line was typed.
    heard: Vec<u8>,
    end: Instant,
}

impl Emulator {
    /// Start it; `aloud` shows on this terminal what the board says.
    pub fn start(mut command: Command, aloud: bool) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the emulator")?;
        let keys = child.stdin.take().context("the emulator has no keyboard")?;
        let screen = child.stdout.take().context("the emulator has no screen")?;
        let (send, output) = mpsc::channel();
        thread::spawn(move || listen(screen, aloud, |bytes| send.send(bytes).is_ok()));
        Ok(Self { child, keys, output, heard: Vec::new(), end: Instant::now() + PATIENCE })
    }

    /// Type a line.
    pub fn line(&mut self, line: &str) -> Result<()> {
        self.heard.clear();
        self.keys.write_all(line.as_bytes())?;
        self.keys.write_all(b"\r")?;
        self.keys.flush()?;
        Ok(())
    }

    /// Wait until the board has said this, with nothing behind it. Returns all that it has said since the last line, that
    /// line included.
    pub fn wait_for(&mut self, end: &str) -> Result<String> {
        self.wait_until(end, |heard| heard.ends_with(end.as_bytes()))
    }

    /// Wait until the board has said this, whatever is behind it.
    pub fn wait_for_part(&mut self, part: &str) -> Result<String> {
        self.wait_until(part, |heard| heard.windows(part.len()).any(|window| window == part.as_bytes()))
    }

    /// Wait until the board has said all of this event, in JSON.
    pub fn wait_for_event(&mut self, event: &str) -> Result<String> {
        let start = format!("{{\"event\":\"{event}\"");
        self.wait_until(event, |heard| {
            let heard = String::from_utf8_lossy(heard);
            heard.ends_with('\n') && heard.lines().last().is_some_and(|line| line.starts_with(&start))
        })
    }

    fn wait_until(&mut self, what: &str, heard: impl Fn(&[u8]) -> bool) -> Result<String> {
        while !heard(&self.heard) {
            if !self.listen(self.end)? {
                bail!("the emulator has ended, and has not said {what:?} but\n{}", self.heard());
            }
        }
        Ok(self.heard())
    }

    /// Tell the emulator something, not the board: which of its cards is taken out, for example.
    pub fn command(&mut self, command: &str) -> Result<()> {
        for keys in [SWITCH, &format!("{command}\n")] {
            self.heard.clear();
            self.keys.write_all(keys.as_bytes())?;
            self.keys.flush()?;
            self.wait_for_part(EMULATOR_PROMPT)?;
        }
        self.heard.clear();
        self.keys.write_all(SWITCH.as_bytes())?;
        self.keys.flush()?;
        Ok(())
    }

    /// Wait until the emulator ends, with success. Returns what the board has said since the last line.
    pub fn finish(mut self) -> Result<String> {
        while self.listen(self.end)? {}
        let status = self.child.wait()?;
        ensure!(status.success(), "the emulator failed, {status}");
        Ok(self.heard())
    }

    /// Listen for a while; false if there will be no more to hear.
    fn listen(&mut self, until: Instant) -> Result<bool> {
        match self.output.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(bytes) => self.heard.extend(bytes),
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
            Err(RecvTimeoutError::Timeout) => {
                bail!("after {} s the board has only said\n{}", PATIENCE.as_secs(), self.heard())
            }
        }
        if self.heard().contains(LAST_WORDS) {
            let end = Instant::now() + LAST_MOMENTS;
            while let Ok(bytes) = self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                self.heard.extend(bytes);
            }
            bail!("the board has stopped:\n{}", self.heard());
        }
        Ok(true)
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard).into_owned()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hand on what the board says as it says it, also to whoever watches.
fn listen(mut screen: ChildStdout, aloud: bool, mut hear: impl FnMut(Vec<u8>) -> bool) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = screen.read(&mut bytes) {
        if aloud {
            let _ = io::stdout().write_all(&bytes[..count]).and_then(|()| io::stdout().flush());
        }
        if !hear(bytes[..count].to_vec()) {
            break;
        }
    }
}
