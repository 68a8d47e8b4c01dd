//! How weights come to their places.

use llamita::format::{Checksum, FormatError};
use llamita::weights::{Entry, Format, Matrix, Pass, Tape, Tensor};
use zerocopy::IntoBytes;

use super::{Error, Home, Lent, Placed, Verify, all_norms, known, norms_len, read_error, single_len, span};
use crate::portions::{Cursor, Pinning, Place, Portion, Portions, Position};
use crate::reader::Span;
use crate::sector::{SECTOR, bytes, bytes_mut};
use crate::source::Source;

impl<'a, S: Source> Placed<'a, S> {
    /// Brings the norms and what is to be pinned to its memory; `progress` hears how many bytes of how many are there.
    ///
    /// The tape is that of the file at `home`.
    ///
    /// # Errors
    /// If something cannot be read, a norm is damaged, or lent memory is too short.
    pub fn load(
        tape: Tape<'a>,
        mut home: Home<'a, S>,
        lent: Lent<'a>,
        verify: Verify,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self, Error<S::Error>> {
        let Lent { norms, pinned } = lent;
        let (len, buffer) = match &home {
            Home::Mapped(file, portion) => (file.len() as u64, *portion),
            Home::Streamed(reader) => (reader.source().len(), reader.buffer_len()),
        };
        let ends = Tape::tensors(tape.config()).map(|tensor| tape.entry(tensor).offset + tape.bytes(tensor));
        let expected = ends.max().unwrap_or(0);
        if len < expected {
            return Err(Error::Length(len, expected));
        }
        let memory = |what, found, expected| {
            if found < expected { Err(Error::Memory(what, found, expected)) } else { Ok(()) }
        };
        memory("a portion of the weights", buffer, Portions::least_buffer(&tape))?;
        memory("the norms, in numbers", norms.len(), norms_len(tape.config()))?;
        if let Home::Streamed(reader) = &home {
            memory("a row of the embedding", reader.single_len(), single_len(&tape))?;
        }
        for tensor in Tape::tensors(tape.config()) {
            let format = tape.entry(tensor).format;
            if let Format::Blocks(_) = format {
                return Err(Error::Format(FormatError::Repack { tensor, format }));
            }
        }
        let (norms, room_to_know) = norms.split_at_mut(all_norms(tape.config()));
        let norms = load_norms(&tape, &mut home, norms)?;

        let room = core::array::from_fn(|memory| (pinned[memory].len() * SECTOR) as u64);
        let portions = match home {
            Home::Mapped(..) => Portions::mapped(tape, buffer),
            Home::Streamed(_) => Portions::new(tape, buffer),
        };
        let cursor = Cursor::start(&portions);
        let mut placed = Self {
            portions,
            pinning: Pinning { total: portions.total(), room },
            pinned,
            norms,
            home,
            pass: Pass::default(),
            cursor,
            ahead: cursor,
            current: None,
            known: &[],
            next_known: 0,
            streams: false,
            verify,
            verified: 0,
            hasher: Checksum::new(),
            hashed: Position { tensor: 0, row: 0 },
            failed: 0,
            failed_ever: 0,
            repeats: false,
        };
        placed.streams = placed.walk().any(|(_, place)| place == Place::Home);
        if !placed.streams || matches!(placed.home, Home::Mapped(..)) {
            placed.known = known::know(placed.walk(), room_to_know);
        }
        let (pinned, embedding) = (placed.pinned_bytes(), tape.bytes(Tensor::Embedding));
        let all = pinned + if tape.entry(Tensor::Embedding).checksum.is_some() { embedding } else { 0 };
        placed.pin(|_| true, |done| progress(done, all))?;
        placed.check_embedding(|done| progress(pinned + done, all))?;
        Ok(placed)
    }

    /// Compares the embedding with its checksum. Its rows are used one by one, before the whole has been read as the
    /// classifier, and where it is none they always are.
    fn check_embedding(&mut self, mut progress: impl FnMut(u64)) -> Result<(), Error<S::Error>> {
        let tape = *self.portions.tape();
        let Entry { offset, checksum, .. } = tape.entry(Tensor::Embedding);
        let Some(checksum) = checksum else { return Ok(()) };
        let end = offset + tape.bytes(Tensor::Embedding);
        let (tries, step) = match &self.home {
            // Two sectors may belong to others as well.
            Home::Streamed(reader) => (reader.patience().tries, reader.buffer_len() - 2 * SECTOR),
            Home::Mapped(..) => (1, Portions::mapped_buffer(&tape)),
        };
        let classifier = Tensor::Matrix(Matrix::Classifier);
        let index = Tape::index(tape.config(), classifier);
        let inside = |portion: &Portion| {
            tape.config().shared_classifier && !portion.rows(index, tape.config().vocab_size).is_empty()
        };
        for attempt in 1..=tries {
            let mut hasher = Checksum::new();
            let mut next = offset;
            while next < end {
                // What is pinned has been read already, rightly or not.
                let known = self.walk().filter(|(portion, place)| inside(portion) && *place != Place::Home);
                let known =
                    known.map(|(portion, place)| (portion.start, portion.start + portion.len as u64, place));
                let pinned = known.filter(|(_, until, _)| *until > next).min_by_key(|(from, ..)| *from);
                let (until, place) = match pinned {
                    Some((from, until, place)) if from <= next => (until.min(end), Some((from, place))),
                    Some((from, ..)) => (from.min(end), None),
                    None => (end, None),
                };
                let len = (until - next).min(step.max(1) as u64) as usize;
                let span = Span { start: next, len };
                match (place, &mut self.home) {
                    (Some((from, Place::Pinned(memory, at))), _) => {
                        let at = at + (next - from) as usize;
                        hasher.update(&bytes(self.pinned[memory])[at..at + len]);
                    }
                    (_, Home::Mapped(file, _)) => hasher.update(&file[next as usize..][..len]),
                    (_, Home::Streamed(reader)) => {
                        reader.take(span).map_err(|error| Error::Read(Tensor::Embedding, error))?;
                        hasher.update(reader.current());
                    }
                }
                next += len as u64;
                progress(next - offset);
            }
            if let Home::Streamed(reader) = &mut self.home {
                reader.release();
            }
            if hasher.finish() == checksum {
                return Ok(());
            }
            if attempt < tries {
                self.pin(inside, |_| ())?;
            }
        }
        Err(Error::Checksum(Tensor::Embedding))
    }

    /// Reads portions that are pinned to their places.
    pub(super) fn pin(
        &mut self,
        wanted: impl Fn(&Portion) -> bool,
        mut progress: impl FnMut(u64),
    ) -> Result<(), Error<S::Error>> {
        let mut done = 0;
        for (portion, place) in self.walk().filter(|(portion, _)| wanted(portion)) {
            let Place::Pinned(memory, offset) = place else { continue };
            let span = span(&portion);
            let from = match &mut self.home {
                Home::Mapped(file, _) => &file[span.start as usize..][..span.len],
                Home::Streamed(reader) => {
                    reader.take(span).map_err(|error| read_error(&self.portions, &portion, error))?;
                    reader.current()
                }
            };
            bytes_mut(self.pinned[memory])[offset..offset + span.len].copy_from_slice(from);
            done += span.len as u64;
            progress(done);
        }
        if let Home::Streamed(reader) = &mut self.home {
            reader.release();
        }
        Ok(())
    }
}

/// Reads all norms, which must be finite and what their checksums say.
fn load_norms<'a, S: Source>(
    tape: &Tape<'_>,
    home: &mut Home<'_, S>,
    norms: &'a mut [f32],
) -> Result<&'a [f32], Error<S::Error>> {
    let config = tape.config();
    let all = Tape::tensors(config).filter(|tensor| matches!(tensor, Tensor::Norm(_)));
    for (tensor, out) in all.zip(norms.chunks_exact_mut(config.dim)) {
        let entry = tape.entry(tensor);
        if entry.format != Format::F32 {
            return Err(Error::Format(FormatError::Repack { tensor, format: entry.format }));
        }
        let span = Span { start: entry.offset, len: 4 * config.dim };
        let mut tries = 0;
        loop {
            match home {
                Home::Mapped(file, _) => {
                    out.as_mut_bytes().copy_from_slice(&file[span.start as usize..][..span.len]);
                }
                Home::Streamed(reader) => reader
                    .single(span, |bytes| out.as_mut_bytes().copy_from_slice(bytes))
                    .map_err(|error| Error::Read(tensor, error))?,
            }
            if entry.checksum.is_none_or(|expected| Checksum::of(out.as_bytes()) == expected) {
                break;
            }
            tries += 1;
            let most = if let Home::Streamed(reader) = home { reader.patience().tries } else { 1 };
            if tries >= most {
                return Err(Error::Checksum(tensor));
            }
        }
        if let Some(index) = out.iter().position(|number| !number.is_finite()) {
            return Err(Error::Format(FormatError::NotFinite { tensor, index }));
        }
    }
    Ok(norms)
}
