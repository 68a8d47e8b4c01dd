//! The reference data of the tests, which is not part of the repository; see CONTRIBUTING.md.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::Write;
use std::path::PathBuf;

/// The place of a file of the reference data; `None`, with a message, where there is none. CI must have it.
pub fn path(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("LLAMITA_TEST_DATA");
    if folder.is_none() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "LLAMITA_TEST_DATA is not set");
        // Of a test that passes, cargo hides what the macros print.
        let mut stderr = std::io::stderr();
        writeln!(stderr, "skipped: set LLAMITA_TEST_DATA to a folder with {name} (see CONTRIBUTING.md)")
            .unwrap();
    }
    folder.map(|folder| PathBuf::from(folder).join(name))
}

/// The bytes of a file of the reference data.
pub fn read(name: &str) -> Option<Vec<u8>> {
    let path = path(name)?;
    Some(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}
