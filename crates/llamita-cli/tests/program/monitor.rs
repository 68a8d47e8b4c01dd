//! The console of a board, at a terminal and in a pipe.

use std::io::Write;
use std::process::Stdio;

use rustix::termios::{LocalModes, tcgetattr};

use crate::program::{command, llamita, llamita_reads};
use crate::serial_board::{Board, open, terminal};

const STORY: &str = ", there was a llama \u{1f999}.\n> No story\nends here.\n3 tok/s\n";

#[test]
fn lines_of_a_pipe_are_answered_in_turn() {
    let board = Board::start();
    let told = llamita_reads(["monitor", "--port", &board.port], b"Once\n\nOnce upon a time\r\n").ok();
    assert_eq!(told, format!("Once{STORY}{STORY}Once upon a time{STORY}"));
    board.wait_for(b"\x15Once\r\rOnce upon a time\r");
    // It is as it was.
    assert_eq!(llamita_reads(["monitor", "--port", &board.port], b"Again").ok(), format!("Again{STORY}"));
}

#[test]
fn a_terminal_gives_every_key_to_the_board() {
    let board = Board::start();
    let (mut keyboard, name) = terminal();
    let terminal = open(&name);
    let edits = || {
        let modes = tcgetattr(&terminal).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    };
    assert!(edits());
    let mut monitor = command(["monitor", "--port", &board.port]);
    let monitor = monitor.stdin(open(&name)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // From then on the terminal gives keys as they are.
    board.wait_for(b"\x15");
    keyboard.write_all(b"Hi\r").unwrap();
    board.wait_for(b"\x15Hi\r");
    keyboard.write_all(b"\x03\x1b[A\x04").unwrap();
    board.wait_for(b"\x15Hi\r\x03\x1b[A\x04");
    keyboard.write_all(b"x\x1dy").unwrap();
    let ended = monitor.wait_with_output().unwrap();
    assert!(ended.status.success());
    board.wait_for(b"\x15Hi\r\x03\x1b[A\x04x");
    let shown = String::from_utf8(ended.stdout).unwrap();
    assert!(shown.contains("\r\x1b[K> Hi\r\nHi, there was a llama"), "{shown:?}");
    assert!(String::from_utf8(ended.stderr).unwrap().contains("Ctrl-]"));
    assert!(edits());
}

#[test]
fn a_board_that_does_not_answer_is_an_error() {
    let board = Board::mute();
    let monitor = |port: &str| llamita_reads(["monitor", "--timeout", "1", "--port", port], b"Once\n");
    monitor(&board.port).refused(1, &[&board.port, "nothing for 1 seconds", "RESET"]);
    monitor("/dev/nonexistent").refused(1, &["there is no port /dev/nonexistent", "connect the board"]);
    llamita(["monitor", "--port", "/dev/null"]).refused(1, &["/dev/null", "check that it is a serial port"]);
    llamita(["monitor", "--port", &board.port, "--baud", "1"]).refused(2, &["--baud"]);
}

#[test]
fn a_board_that_is_unplugged_is_an_error() {
    let board = Board::mute();
    let mut monitor = command(["monitor", "--port", &board.port]);
    let (_keyboard, name) = terminal();
    let monitor = monitor.stdin(open(&name)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    board.wait_for(b"\x15");
    let port = board.port.clone();
    drop(board);
    let ended = monitor.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("error: {port} is gone")), "{stderr}");
}
