//! The serial port: keys in, lines and events out.

use core::fmt::{self, Display, Write};

use embedded_io::{Read, ReadReady, Write as _};
use heapless::{Deque, Vec};

use crate::editor::CTRL_C;
use crate::text::{Clean, Escaped};
use crate::{Machine, Panel};

/// Keys that may wait.
pub(crate) const TYPED: usize = 128;

/// The machine, with what is on its way to and from its port.
///
/// What a port gets wrong is nobody's end: a key or a text is lost then, and the next may come through.
pub(crate) struct Port<'m, M: Machine> {
    machine: &'m mut M,
    /// Text that has not been sent yet.
    out: Vec<u8, 64>,
    /// Keys that came while a story was told.
    typed: Deque<u8, TYPED>,
    /// Whether there were too many of them.
    pub lost: bool,
    /// Whether events are told as JSON, to a program.
    pub json: bool,
}

/// An error that has been told.
pub(crate) struct Told;

impl<'m, M: Machine> Port<'m, M> {
    pub fn new(machine: &'m mut M) -> Self {
        Self { machine, out: Vec::new(), typed: Deque::new(), lost: false, json: false }
    }

    /// Tells the watchdog that all is well.
    pub fn feed(&mut self) {
        M::feed();
    }

    /// What shows the story besides.
    pub fn panel(&mut self) -> Option<&mut dyn Panel> {
        self.machine.panel()
    }

    /// The cores of the machine.
    pub fn team(&self) -> M::Team {
        self.machine.team()
    }

    /// Waits for a key.
    pub fn key(&mut self) -> u8 {
        self.flush();
        loop {
            if let Some(key) = self.typed.pop_front().or_else(|| self.poll()) {
                return key;
            }
            self.feed();
        }
    }

    /// Whether something is to be stopped. Other keys wait for their line; what was typed before is forgotten.
    pub fn interrupted(&mut self) -> bool {
        self.feed();
        // No more of them, should a port always have another.
        for _ in 0..TYPED {
            let Some(key) = self.poll() else { break };
            if key == CTRL_C {
                self.typed.clear();
                self.lost = false;
                return true;
            }
            // The rest of a line would be taken for another line, so none is kept where not all are.
            self.lost = self.lost || self.typed.push_back(key).is_err();
            if self.lost {
                self.typed.clear();
            }
        }
        false
    }

    fn poll(&mut self) -> Option<u8> {
        let console = self.machine.console();
        let mut key = [0];
        let came = matches!(console.read_ready(), Ok(true)) && matches!(console.read(&mut key), Ok(1..));
        came.then_some(key[0])
    }

    /// Sends what was written, now.
    pub fn flush(&mut self) {
        self.send();
        let _ = self.machine.console().flush();
    }

    fn send(&mut self) {
        let console = self.machine.console();
        let mut rest = &self.out[..];
        while !rest.is_empty() {
            match console.write(rest) {
                Ok(0) | Err(_) => break,
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            }
        }
        self.out.clear();
    }

    /// Writes to the port, as it is.
    pub fn put(&mut self, text: fmt::Arguments<'_>) {
        // It writes all there is.
        let _ = self.write_fmt(text);
    }

    /// Writes a part of a text, or of a string of JSON.
    pub fn piece(&mut self, text: &str) {
        if let Some(panel) = self.panel() {
            panel.push(text);
        }
        if self.json {
            self.put(format_args!("{}", Escaped(text)));
        } else {
            self.put(format_args!("{}", Clean(text)));
        }
    }

    /// Tells something in a line.
    pub fn say(&mut self, message: fmt::Arguments<'_>) {
        if self.json {
            self.put(format_args!("{{\"event\":\"info\",\"message\":\"{}\"}}\n", Escaped(message)));
        } else {
            self.put(format_args!("{}\r\n", Clean(message)));
        }
        self.flush();
    }

    /// Tells what went wrong, and what to do about it.
    pub fn refuse(&mut self, error: &dyn Display) -> Told {
        if let Some(panel) = self.panel() {
            panel.message(error);
        }
        if self.json {
            self.put(format_args!("{{\"event\":\"error\",\"message\":\"{}\"}}\n", Escaped(error)));
        } else {
            self.put(format_args!("error: {}\r\n", Clean(error)));
        }
        self.flush();
        Told
    }
}

impl<M: Machine> Write for Port<'_, M> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.out.is_full() {
                self.send();
            }
            let _ = self.out.push(byte);
        }
        Ok(())
    }
}
