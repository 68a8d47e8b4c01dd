//! Weights of which some are pinned in memories, and the others come from a file as they are needed.

mod known;
mod load;

use core::fmt;

use llamita::format::{Checksum, FormatError, TensorName};
use llamita::weights::{Matrix, Norm, Pass, Tape, Tensor, Weights};
use llamita::{Config, Rows, rows_of};
use llamita_kernels::quantized::BLOCK_ROWS;

use crate::board::MEMORIES;
use crate::portions::{Cursor, Pinning, Place, Portion, Portions, Position};
use crate::reader::{ReadError, Reader, Span, Stats};
use crate::sector::{SECTOR, Sector, bytes};
use crate::source::Source;

use known::Known;

/// Weights that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Error<E> {
    /// Bytes cannot be read: the tensor that they belong to, where, and why.
    Read(Tensor, ReadError<E>),
    /// What was read is not what was written.
    Checksum(Tensor),
    /// The tensors are not as they must be.
    Format(FormatError),
    /// The source has another length than the file whose tape this is: found, expected at least.
    Length(u64, u64),
    /// Lent memory is too short: for what, found, expected, in bytes.
    Memory(&'static str, usize, usize),
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(tensor, ReadError { start, tries, cause }) => write!(
                f,
                "tensor {} cannot be read, from byte {start} of the file on, tried {tries} times ({cause}): check the \
                 medium and its contacts, then go on, or copy the file anew",
                TensorName(*tensor)
            ),
            Self::Checksum(tensor) => write!(
                f,
                "the checksum of tensor {} is wrong, also when it is read again: the file is damaged, or the medium \
                 is; copy the file anew",
                TensorName(*tensor)
            ),
            Self::Format(error) => error.fmt(f),
            Self::Length(found, expected) => write!(
                f,
                "the file has {found} bytes, its tensors need {expected}: it was changed or cut short, copy it anew"
            ),
            Self::Memory(what, found, expected) => {
                write!(f, "{found} bytes were lent for {what}, expected {expected}: plan anew")
            }
        }
    }
}

impl<E: core::error::Error> core::error::Error for Error<E> {}

/// When weights are compared with the checksums in their file, if it has any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// When they are read for the first time.
    #[default]
    First,
    /// Each time.
    Always,
}

/// Where the weights come from that are not pinned.
pub enum Home<'a, S: Source> {
    /// A file in memory, as in memory-mapped flash: they are used in place, in portions of so many bytes, see
    /// [`Plan::buffer`](crate::plan::Plan::buffer).
    Mapped(&'a [u8], usize),
    /// A file that is read.
    Streamed(Reader<S>),
}

/// Memory for weights.
pub struct Lent<'a> {
    /// For all norms, and to know where portions are: [`norms_len`].
    pub norms: &'a mut [f32],
    /// For what is pinned in each of the memories.
    pub pinned: [&'a mut [Sector]; MEMORIES],
}

/// Memory for the norms of a model, and to know where portions are, in `f32`s.
///
/// Where addresses have few bits it may be more than there can be, and is all that they count then.
pub const fn norms_len(config: &Config) -> usize {
    all_norms(config).saturating_add(known::LEN)
}

/// Numbers of all norms.
const fn all_norms(config: &Config) -> usize {
    (2 * config.n_layers + 1).saturating_mul(config.dim)
}

/// Bytes of the memory for single reads: rows of the embedding, and norms.
pub fn single_len(tape: &Tape<'_>) -> usize {
    let config = tape.config();
    let rows = if tape.entry(Tensor::Embedding).format.group().is_some() { BLOCK_ROWS } else { 1 };
    let row = tape.entry(Tensor::Embedding).format.bytes(rows, config.dim) as usize;
    // Each may begin with the last byte of a sector.
    (row.max(4 * config.dim) + SECTOR - 1).next_multiple_of(SECTOR)
}

/// Weights in their places: norms in memory, as many of the others pinned as there is memory for, and the rest read while
/// the arithmetic goes on.
pub struct Placed<'a, S: Source> {
    portions: Portions<'a>,
    pinning: Pinning,
    pinned: [&'a mut [Sector]; MEMORIES],
    norms: &'a [f32],
    home: Home<'a, S>,
    pass: Pass,
    /// Behind the current portion, and behind what was read ahead.
    cursor: Cursor,
    ahead: Cursor,
    current: Option<(Portion, Place)>,
    /// The first portions, where none of them is read: they need not be found anew for each token.
    known: &'a [Known],
    /// Of these, the one behind that which was found last.
    next_known: usize,
    /// Whether some portion is not pinned.
    streams: bool,
    verify: Verify,
    /// Tensors before this one have been verified by a pass that came to its end.
    verified: usize,
    hasher: Checksum,
    /// Up to where rows are part of the checksum.
    hashed: Position,
    /// Passes in a row that met a wrong checksum, and all of them.
    failed: u32,
    failed_ever: u64,
    /// Whether the next pass is such a one once more.
    repeats: bool,
}

impl<'a, S: Source> Placed<'a, S> {
    /// Bytes that are pinned.
    pub fn pinned_bytes(&self) -> u64 {
        let pinned = self.walk().filter(|(_, place)| matches!(place, Place::Pinned(..)));
        pinned.map(|(portion, _)| portion.len as u64).sum()
    }

    /// Bytes that are read for each token, rows of the embedding apart.
    pub fn streamed_bytes(&self) -> u64 {
        self.pinning.total - self.pinned_bytes()
    }

    /// The memory that has what was lent last, as a number; `None` where it came from home.
    pub fn memory(&self) -> Option<usize> {
        match self.current {
            Some((_, Place::Pinned(memory, _))) => Some(memory),
            _ => None,
        }
    }

    /// What was read so far.
    pub fn stats(&self) -> Stats {
        match &self.home {
            Home::Streamed(reader) => {
                let stats = reader.stats();
                Stats { retries: stats.retries + self.failed_ever, ..stats }
            }
            Home::Mapped(..) => Stats::default(),
        }
    }

    /// The portions in order, and their places.
    fn walk(&self) -> impl Iterator<Item = (Portion, Place)> + use<'a, S> {
        let (portions, pinning) = (self.portions, self.pinning);
        let mut cursor = Cursor::start(&portions);
        core::iter::from_fn(move || cursor.step(&portions, &pinning))
    }

    /// Makes the portion current that has this row.
    fn bring(&mut self, position: Position) -> Result<(), Error<S::Error>> {
        if matches!(&self.current, Some((portion, _)) if portion.contains(position)) {
            return Ok(());
        }
        if let Some(found) = known::find(self.known, &mut self.next_known, position) {
            self.current = Some(found);
            return Ok(());
        }
        let (portion, place) = loop {
            match self.cursor.step(&self.portions, &self.pinning) {
                Some(found) if found.0.contains(position) => break found,
                Some(_) => (),
                // Only a pass that begins anew asks for what is behind.
                None => self.cursor = Cursor::start(&self.portions),
            }
        };
        self.current = None;
        let Home::Streamed(reader) = &mut self.home else {
            self.current = Some((portion, place));
            return Ok(());
        };
        let refuse = |error| read_error(&self.portions, &portion, error);
        reader.release();
        if place == Place::Home && !reader.seek(span(&portion)).map_err(refuse)? {
            reader.ahead(span(&portion));
            self.ahead = self.cursor;
        }
        self.read_ahead();
        let Home::Streamed(reader) = &mut self.home else { return Ok(()) };
        if place == Place::Home {
            reader.take(span(&portion)).map_err(|error| read_error(&self.portions, &portion, error))?;
        }
        self.current = Some((portion, place));
        Ok(())
    }

    /// Begins to read what comes next, into all memory that there is for it, the next token's first weights included.
    fn read_ahead(&mut self) {
        let Home::Streamed(reader) = &mut self.home else { return };
        let classifier = Tape::index(self.portions.tape().config(), Tensor::Matrix(Matrix::Classifier));
        // Perhaps there is nothing to read, or only what this pass has no use for.
        let mut rounds = if self.streams { 0 } else { 2 };
        while rounds < 2 {
            let mut next = self.ahead;
            let unused = |portion: &Portion| portion.first.tensor == classifier && self.pass.logits == 0;
            match next.step(&self.portions, &self.pinning).filter(|(portion, _)| !unused(portion)) {
                Some((portion, Place::Home)) => {
                    if !reader.ahead(span(&portion)) {
                        return;
                    }
                    self.ahead = next;
                    rounds = 0;
                }
                Some(_) => self.ahead = next,
                None => {
                    self.ahead = Cursor::start(&self.portions);
                    rounds += 1;
                }
            }
        }
    }

    /// Bytes of rows in the current portion.
    fn current_bytes(&self, start: u64, len: usize) -> &[u8] {
        let Some((portion, place)) = &self.current else { return &[] };
        let at = (start - portion.start) as usize;
        match (place, &self.home) {
            (Place::Pinned(memory, offset), _) => &bytes(self.pinned[*memory])[offset + at..][..len],
            (Place::Home, Home::Mapped(file, _)) => &file[start as usize..][..len],
            (Place::Home, Home::Streamed(reader)) => &reader.current()[at..at + len],
        }
    }

    /// Makes the portion current that is needed next of some matrices, and finds the rows of each that are in it; empty
    /// ranges say from where on.
    // Not in `lend`, of which there is one for each number of matrices.
    #[inline(never)]
    fn bring_some(
        &mut self,
        matrices: &[Matrix],
        ranges: &mut [core::ops::Range<usize>],
    ) -> Result<(), Error<S::Error>> {
        let mut begun = false;
        for (&matrix, range) in matrices.iter().zip(ranges) {
            let tensor = Tensor::Matrix(matrix);
            let (rows, _) = Tape::shape(self.config(), tensor);
            if range.start == rows {
                continue;
            }
            let index = Tape::index(self.config(), tensor);
            if !core::mem::replace(&mut begun, true) {
                self.bring(Position { tensor: index, row: range.start })?;
            }
            let lent = self.current.map_or(0..0, |(portion, _)| portion.rows(index, rows));
            if !lent.contains(&range.start) {
                return Ok(());
            }
            range.end = lent.end;
            if self.verifies(index) {
                self.check(matrix, range)?;
            }
            if range.end < rows {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Rows of a matrix that are in the current portion.
    #[inline(never)]
    fn rows_in(&self, matrix: Matrix, rows: &core::ops::Range<usize>) -> Result<Rows<'_>, Error<S::Error>> {
        if rows.is_empty() {
            return Ok(Rows::default());
        }
        let tensor = Tensor::Matrix(matrix);
        let (_, columns) = Tape::shape(self.config(), tensor);
        let (start, len) = self.span_of(matrix, rows);
        rows_of(tensor, self.portions.tape().entry(tensor).format, columns, self.current_bytes(start, len))
            .map_err(Error::Format)
    }

    /// Where rows are in the file, and their bytes.
    fn span_of(&self, matrix: Matrix, rows: &core::ops::Range<usize>) -> (u64, usize) {
        let tensor = Tensor::Matrix(matrix);
        let (_, columns) = Tape::shape(self.config(), tensor);
        let entry = self.portions.tape().entry(tensor);
        // Where all of a matrix is lent, it starts with the first row.
        let start = if rows.start == 0 { 0 } else { entry.format.bytes(rows.start, columns) };
        let end = entry.format.bytes(rows.end, columns);
        (entry.offset + start, (end - start) as usize)
    }

    /// Whether what is read now has to be compared with something.
    fn verifies(&self, tensor: usize) -> bool {
        self.verify == Verify::Always || tensor >= self.verified
    }

    /// Adds rows that are about to be lent to the checksum of their matrix, and compares it at the end.
    fn check(&mut self, matrix: Matrix, rows: &core::ops::Range<usize>) -> Result<(), Error<S::Error>> {
        let tensor = Tensor::Matrix(matrix);
        let (config, index) = (*self.config(), Tape::index(self.config(), tensor));
        let Some(expected) = self.portions.tape().entry(tensor).checksum else { return Ok(()) };
        if self.hashed.tensor != index {
            self.hasher = Checksum::new();
            self.hashed = Position { tensor: index, row: 0 };
        }
        if self.hashed.row != rows.start {
            // They are lent once more.
            return Ok(());
        }
        self.hashed.row = rows.end;
        let (start, len) = self.span_of(matrix, rows);
        let mut hasher = core::mem::take(&mut self.hasher);
        hasher.update(self.current_bytes(start, len));
        self.hasher = hasher;
        if rows.end == Tape::shape(&config, tensor).0 {
            if self.hasher.finish() != expected {
                return Err(Error::Checksum(tensor));
            }
            let layers = config.n_layers;
            let last = match matrix {
                Matrix::W2(layer) => layer + 1 == layers && self.pass.logits == 0,
                Matrix::Classifier => true,
                _ => false,
            };
            // A pass that fails half way has to read all of it once more.
            if last {
                self.verified = self.verified.max(index + 1);
            }
        }
        Ok(())
    }
}

impl<S: Source> Weights for Placed<'_, S> {
    type Error = Error<S::Error>;

    fn config(&self) -> &Config {
        self.portions.tape().config()
    }

    fn begin(&mut self, pass: Pass) {
        self.pass = pass;
        if !core::mem::take(&mut self.repeats) {
            self.failed = 0;
        }
        self.hashed = Position { tensor: 0, row: 0 };
        self.cursor = Cursor::start(&self.portions);
        self.current = None;
        if let Home::Streamed(reader) = &mut self.home {
            reader.release();
        }
        self.read_ahead();
    }

    fn retry(&mut self, error: &Self::Error) -> bool {
        let (Error::Checksum(tensor), Home::Streamed(reader)) = (error, &self.home) else { return false };
        self.failed += 1;
        if self.failed >= reader.patience().tries {
            self.failed = 0;
            return false;
        }
        self.failed_ever += 1;
        self.repeats = true;
        // What is pinned of it may have been damaged on its way.
        let (index, (rows, _)) = (Tape::index(self.config(), *tensor), Tape::shape(self.config(), *tensor));
        self.pin(|portion| !portion.rows(index, rows).is_empty(), |_| ()).is_ok()
    }

    fn waited(&self) -> u64 {
        self.stats().waited
    }

    fn norm(&self, norm: Norm) -> &[f32] {
        let (layers, dim) = (self.config().n_layers, self.config().dim);
        let index = match norm {
            Norm::Attention(layer) => 2 * layer,
            Norm::FeedForward(layer) => 2 * layer + 1,
            Norm::Final => 2 * layers,
        };
        &self.norms[index * dim..(index + 1) * dim]
    }

    fn embed(&mut self, token: u32, out: &mut [f32]) -> Result<(), Self::Error> {
        let tape = *self.portions.tape();
        let format = tape.entry(Tensor::Embedding).format;
        let (all_rows, columns) = Tape::shape(tape.config(), Tensor::Embedding);
        let step = if format.group().is_some() { BLOCK_ROWS } else { 1 };
        let first = token as usize / step * step;
        let start = self.portions.place(0, first);
        let len = (self.portions.place(0, all_rows.min(first + step)) - start) as usize;
        let row = |bytes: &[u8], out: &mut [f32]| {
            let rows = rows_of(Tensor::Embedding, format, columns, bytes).map_err(Error::Format)?;
            rows.row(token as usize - first, out);
            Ok(())
        };
        if let Home::Mapped(file, _) = &self.home {
            return row(&file[start as usize..][..len], out);
        }
        // Where the classifier is the embedding, it may be pinned.
        if tape.config().shared_classifier {
            let tensor = Tape::index(tape.config(), Tensor::Matrix(Matrix::Classifier));
            let known = |found: &(Portion, Place)| found.0.contains(Position { tensor, row: first });
            if let Some((portion, Place::Pinned(memory, offset))) = self.walk().find(known) {
                let at = offset + (start - portion.start) as usize;
                return row(&bytes(self.pinned[memory])[at..at + len], out);
            }
        }
        let verifies = self.verifies(Tape::len(tape.config()) - 1);
        let Home::Streamed(reader) = &mut self.home else { return Ok(()) };
        let span = Span { start, len };
        let refuse = |error| Error::Read(Tensor::Embedding, error);
        if !verifies || tape.entry(Tensor::Embedding).checksum.is_none() {
            return reader.single(span, |bytes| row(bytes, out)).map_err(refuse)?;
        }
        // A row is too little for the checksum of the whole: it has to come twice the same, as it does when as many
        // reads went wrong as may, one good one before them or not.
        let mut before = None;
        for _ in 0..reader.patience().tries + 2 {
            let found = reader.single(span, |bytes| row(bytes, out).map(|()| Checksum::of(bytes)));
            let found = Some(found.map_err(refuse)??);
            if found == before {
                return Ok(());
            }
            before = found;
        }
        Err(Error::Checksum(Tensor::Embedding))
    }

    fn lend<const N: usize>(
        &mut self,
        matrices: [Matrix; N],
        from: [usize; N],
    ) -> Result<[Rows<'_>; N], Self::Error> {
        let mut ranges = from.map(|from| from..from);
        self.bring_some(&matrices, &mut ranges)?;
        let mut lent = [Rows::default(); N];
        for i in 0..N {
            lent[i] = self.rows_in(matrices[i], &ranges[i])?;
        }
        Ok(lent)
    }
}

fn span(portion: &Portion) -> Span {
    Span { start: portion.start, len: portion.len }
}

/// Names the tensor whose bytes cannot be read.
fn read_error<E>(portions: &Portions<'_>, portion: &Portion, error: ReadError<E>) -> Error<E> {
    let tensor = Tape::tensor(portions.tape().config(), portion.first.tensor);
    Error::Read(tensor, ReadError { start: portion.start, ..error })
}
