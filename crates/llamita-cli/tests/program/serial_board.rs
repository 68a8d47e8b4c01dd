//! A board at the other end of a pseudo-terminal, with a console that answers as llamita's does.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Nothing takes longer than this.
const PATIENCE: Duration = Duration::from_secs(60);
/// Unplugs a board.
const UNPLUG: u8 = 0;

/// A pseudo-terminal: who types and sees at it, and the name of the terminal. Programs that are started get none of it.
pub fn terminal() -> (File, String) {
    let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&keyboard).unwrap();
    unlockpt(&keyboard).unwrap();
    let name = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
    (keyboard.into(), name)
}

/// Opens a terminal by its name.
pub fn open(name: &str) -> File {
    OpenOptions::new().read(true).write(true).open(name).unwrap()
}

/// A board that is connected until it is dropped.
pub struct Board {
    /// The name of its port.
    pub port: String,
    heard: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
    /// The terminal stays while nobody else has it open.
    terminal: File,
}

impl Board {
    /// A board that shows its prompt.
    pub fn start() -> Self {
        Self::with_console(answer)
    }

    /// A board that never says anything.
    pub fn mute() -> Self {
        Self::with_console(|_, _| String::new())
    }

    /// A board that answers every byte, given all before it of the line.
    fn with_console(console: fn(&mut Vec<u8>, u8) -> String) -> Self {
        let (mut board, port) = terminal();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let terminal = open(&port);
        let thread = thread::spawn(move || {
            let (mut line, mut byte) = (Vec::new(), [0]);
            loop {
                board.read_exact(&mut byte).unwrap();
                if byte[0] == UNPLUG {
                    break;
                }
                hears.lock().unwrap().push(byte[0]);
                board.write_all(console(&mut line, byte[0]).as_bytes()).unwrap();
            }
        });
        Self { port, heard, thread: Some(thread), terminal }
    }

    /// All that was sent to it.
    pub fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until it has been sent this, and nothing else.
    pub fn wait_for(&self, bytes: &[u8]) {
        let start = Instant::now();
        while self.heard() != bytes {
            assert!(start.elapsed() < PATIENCE, "{:?}", String::from_utf8_lossy(&self.heard()));
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.terminal.write_all(&[UNPLUG]).unwrap();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

/// Keys are echoed, and each line is answered by a story.
fn answer(line: &mut Vec<u8>, key: u8) -> String {
    match key {
        0x03 => {
            line.clear();
            "^C\r\n> ".to_owned()
        }
        0x15 => {
            line.clear();
            "\r\x1b[K> ".to_owned()
        }
        b'\r' => {
            let begin = String::from_utf8(std::mem::take(line)).unwrap();
            format!("\r\n{begin}, there was a llama \u{1f999}.\r\n> No story\r\nends here.\r\n3 tok/s\r\n> ")
        }
        _ => {
            line.push(key);
            char::from(key).to_string()
        }
    }
}
