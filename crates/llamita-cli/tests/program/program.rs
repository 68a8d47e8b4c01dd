//! Running the program.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A run of the program that is over.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The program with these arguments, to be changed further.
pub fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamita"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn end(mut command: Command) -> Ended {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
    Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// Runs the program with these arguments.
pub fn llamita<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ended {
    end(command(arguments))
}

/// Runs the program with these arguments and this on its standard input.
pub fn llamita_reads<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>, input: &[u8]) -> Ended {
    let mut command = command(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
    Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

impl Ended {
    /// Standard output of a run that went well.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// The one JSON object that a run printed.
    pub fn json(self) -> Value {
        let text = self.ok();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Checks that the run ended with this code and one line that has all these parts.
    #[track_caller]
    pub fn refused(self, code: i32, parts: &[&str]) {
        let Self { code: found, stdout, stderr } = self;
        assert_eq!(found, Some(code), "{stderr}");
        assert_eq!(stdout, "", "{stderr}");
        assert!(stderr.starts_with("error: "), "{stderr:?}");
        assert!(stderr.ends_with('\n') && stderr.matches('\n').count() == 1, "not one line: {stderr:?}");
        for part in parts {
            assert!(stderr.contains(part), "{part:?} is missing: {stderr:?}");
        }
    }
}
