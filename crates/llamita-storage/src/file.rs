//! A file of the system, read on a thread of its own.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use crate::error::{OpenError, Reason};
use crate::sector::{SECTOR, Sector, bytes_mut};
use crate::source::{Finished, Source, read_len};

/// A file that a thread reads while the caller computes.
#[derive(Debug)]
pub struct FileSource {
    len: u64,
    requests: Sender<Request>,
    finished: Receiver<Finished<Vec<Sector>, io::Error>>,
    patience: Duration,
}

#[derive(Debug)]
struct Request {
    first: u64,
    count: usize,
    buffer: Vec<Sector>,
}

impl FileSource {
    /// Opens a file. A read that takes longer than `patience` counts as stalled.
    ///
    /// # Errors
    /// If it is no regular file with at least one byte, or cannot be read.
    pub fn open(path: impl AsRef<Path>, patience: Duration) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let refuse = |reason| OpenError::new(path, reason);
        let (mut file, len) = crate::model_file::open_regular(path).map_err(refuse)?;
        let (requests, queue) = mpsc::channel::<Request>();
        let (done, finished) = mpsc::channel();
        let read = move || {
            for Request { first, count, mut buffer } in queue {
                let wanted = read_len(len, first, count);
                let outcome = read_at(&mut file, first, &mut bytes_mut(&mut buffer)[..wanted]);
                // Without a caller there is nothing left to do.
                if done.send(Finished { buffer, outcome }).is_err() {
                    break;
                }
            }
        };
        let started = thread::Builder::new().name("llamita-read".to_owned()).spawn(read);
        started.map_err(|error| refuse(Reason::Io(error)))?;
        Ok(Self { len, requests, finished, patience })
    }
}

/// Reads until the memory is full or the file ends.
fn read_at(file: &mut File, first: u64, mut out: &mut [u8]) -> io::Result<usize> {
    file.seek(SeekFrom::Start(first * SECTOR as u64))?;
    let wanted = out.len();
    while !out.is_empty() {
        match file.read(out) {
            Ok(0) => break,
            Ok(count) => out = &mut out[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(wanted - out.len())
}

impl Source for FileSource {
    type Error = io::Error;
    type Buffer = Vec<Sector>;

    fn len(&self) -> u64 {
        self.len
    }

    fn start(&mut self, first: u64, count: usize, buffer: Vec<Sector>) {
        // The thread ends after this side only; `finish` would tell.
        let _ = self.requests.send(Request { first, count, buffer });
    }

    fn finish(&mut self) -> Option<Finished<Vec<Sector>, io::Error>> {
        // A thread that has ended gives nothing either.
        self.finished.recv_timeout(self.patience).ok()
    }
}
