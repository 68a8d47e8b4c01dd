//! The tape cut into portions that are read at once, and which of them are pinned.

use core::ops::Range;

use llamita::Tape;
use llamita::weights::{Matrix, Tensor};
use llamita_kernels::quantized::BLOCK_ROWS;

use crate::board::MEMORIES;
use crate::sector::SECTOR;

/// Memory for a portion is aligned as in the file to so many bytes.
const ALIGNMENT: u64 = 64;

/// Bytes of a file in memory that are one portion if they are the weights of one product: in two portions it would be two,
/// and what is done with its result would wait for the second.
const PRODUCT: u64 = 64 << 10;

/// A place on the tape: a row of a matrix, or the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The matrix, by its index on the tape.
    pub tensor: usize,
    /// The row.
    pub row: usize,
}

/// Rows that follow one another on the tape and in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// The first row.
    pub first: Position,
    /// The row after the last.
    pub end: Position,
    /// First byte in the file.
    pub start: u64,
    /// Bytes; what lies between matrices counts.
    pub len: usize,
}

impl Portion {
    /// Whether a row is in it.
    pub fn contains(&self, position: Position) -> bool {
        (self.first..self.end).contains(&position)
    }

    /// The rows that it has of a matrix, which has `rows` of them.
    pub fn rows(&self, tensor: usize, rows: usize) -> Range<usize> {
        let first = if tensor == self.first.tensor { self.first.row } else { 0 };
        let end = if tensor == self.end.tensor { self.end.row } else { rows };
        let inside = (self.first.tensor..=self.end.tensor).contains(&tensor);
        if inside && first < end { first..end } else { 0..0 }
    }
}

/// All matrices of a model in the order of the tape, but for the embedding where it is apart, in portions of whole
/// blocks of eight rows.
#[derive(Clone, Copy, Debug)]
pub struct Portions<'a> {
    tape: Tape<'a>,
    /// Bytes of the memory that a portion is read to, in whole sectors.
    buffer: usize,
    /// Bytes of a product that is not cut, though it may be longer than that memory.
    product: u64,
}

impl<'a> Portions<'a> {
    /// Portions that fit a buffer of this many bytes, at least [`Portions::least_buffer`], when the sectors that they
    /// touch are read.
    pub const fn new(tape: Tape<'a>, buffer: usize) -> Self {
        Self { tape, buffer: buffer / SECTOR * SECTOR, product: 0 }
    }

    /// Portions of a file in memory, which are longer where a small product needs it and end before one that they would cut.
    pub const fn mapped(tape: Tape<'a>, buffer: usize) -> Self {
        Self { product: PRODUCT, ..Self::new(tape, buffer) }
    }

    /// Bytes of the smallest buffer that a tape can be read with.
    pub fn least_buffer(tape: &Tape<'_>) -> usize {
        let block = |tensor: Tensor| {
            let (rows, columns) = Tape::shape(tape.config(), tensor);
            tape.entry(tensor).format.bytes(rows.min(BLOCK_ROWS), columns) as usize
        };
        let matrices = Tape::tensors(tape.config()).filter(|tensor| matches!(tensor, Tensor::Matrix(_)));
        // A block may begin with the last byte of a sector.
        (matrices.map(block).max().unwrap_or(0) + SECTOR - 1).next_multiple_of(SECTOR)
    }

    /// Bytes that a portion may have where nothing is read, but some are pinned.
    pub fn mapped_buffer(tape: &Tape<'_>) -> usize {
        Self::least_buffer(tape).max(1 << 14)
    }

    /// Bytes of a portion that has all that lies together in the file: where a memory has room for everything, portions
    /// would only take steps.
    pub fn whole(tape: &Tape<'_>) -> usize {
        let ends = Tape::tensors(tape.config()).map(|tensor| tape.entry(tensor).offset + tape.bytes(tensor));
        ends.max().map_or(0, |end| usize::try_from(end).unwrap_or(usize::MAX / 2)) + SECTOR
    }

    /// The tape.
    pub const fn tape(&self) -> &Tape<'a> {
        &self.tape
    }

    /// The first row of the first matrix.
    pub fn start(&self) -> Position {
        self.settle(Position { tensor: 1, row: 0 })
    }

    /// The end of the tape.
    pub fn end(&self) -> Position {
        Position { tensor: Tape::len(self.tape.config()), row: 0 }
    }

    /// The position itself, or the next one that is a row of a matrix.
    fn settle(&self, mut at: Position) -> Position {
        let config = self.tape.config();
        while at < self.end() {
            let tensor = Tape::tensor(config, at.tensor);
            if matches!(tensor, Tensor::Matrix(_)) && at.row < Tape::shape(config, tensor).0 {
                return at;
            }
            at = Position { tensor: at.tensor + 1, row: 0 };
        }
        self.end()
    }

    /// Where a row begins in the file, or where the last row ends.
    pub fn place(&self, tensor: usize, row: usize) -> u64 {
        let tensor = Tape::tensor(self.tape.config(), tensor);
        let entry = self.tape.entry(tensor);
        entry.offset + entry.format.bytes(row, Tape::shape(self.tape.config(), tensor).1)
    }

    /// Where the product that begins at a position ends in the file, if it is one that is not cut.
    fn product_end(&self, first: Position) -> Option<u64> {
        let config = self.tape.config();
        let Tensor::Matrix(matrix) = Tape::tensor(config, first.tensor) else { return None };
        let last = match matrix {
            Matrix::Wq(layer) => Matrix::Wv(layer),
            Matrix::W1(layer) => Matrix::W3(layer),
            Matrix::Wo(_) | Matrix::W2(_) => matrix,
            Matrix::Wk(_) | Matrix::Wv(_) | Matrix::W3(_) | Matrix::Classifier => return None,
        };
        let tensor = Tensor::Matrix(last);
        let end = self.place(Tape::index(config, tensor), Tape::shape(config, tensor).0);
        let len = end.checked_sub(self.place(first.tensor, first.row))?;
        (first.row == 0 && len <= self.product).then_some(end)
    }

    /// The portion that begins at a position; none at the end.
    pub fn portion(&self, first: Position) -> Option<Portion> {
        if first >= self.end() {
            return None;
        }
        let start = self.place(first.tensor, first.row);
        // The first sector has something before the portion.
        let limit = start - start % SECTOR as u64 + self.buffer as u64;
        let limit = self.product_end(first).map_or(limit, |end| limit.max(end));
        // What has to be read for nothing between two matrices costs less than another read.
        let gap = self.buffer as u64 / 8;
        let (mut at, mut end) = (first, start);
        while at < self.end() {
            let place = self.place(at.tensor, at.row);
            let cut = || at > first && self.product_end(at).is_some_and(|end| end > limit);
            if place < end || place - end > gap || cut() {
                break;
            }
            let (rows, columns) =
                Tape::shape(self.tape.config(), Tape::tensor(self.tape.config(), at.tensor));
            let format = self.tape.entry(Tape::tensor(self.tape.config(), at.tensor)).format;
            let fits = |row: usize| self.place(at.tensor, row) <= limit;
            let row = if fits(rows) {
                rows
            } else {
                let blocks = limit.saturating_sub(place) / format.bytes(BLOCK_ROWS, columns);
                // Below `rows`, since those do not fit.
                at.row + blocks as usize * BLOCK_ROWS
            };
            if row == at.row {
                break;
            }
            end = self.place(at.tensor, row);
            let next = Position { row, ..at };
            at = self.settle(next);
            if at == next {
                break;
            }
        }
        Some(Portion { first, end: at, start, len: (end - start) as usize })
    }

    /// Bytes of all portions.
    pub fn total(&self) -> u64 {
        let mut at = self.start();
        let all = core::iter::from_fn(|| {
            let portion = self.portion(at)?;
            at = portion.end;
            Some(portion.len as u64)
        });
        all.sum()
    }
}

/// Where a portion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a memory, by its number, from a byte of what that has for weights.
    Pinned(usize, usize),
    /// Where the model comes from.
    Home,
}

/// What is pinned: as many bytes as there is room for, in portions that are spread evenly over the tape.
///
/// Every byte is read once for each token, so one is as good to pin as another, and what was used longest ago is what is
/// needed next: a cache would forget everything in time. But while pinned weights are multiplied the medium can only
/// read ahead as far as there are buffers, and so pinned and streamed portions take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinning {
    /// Bytes of all portions.
    pub total: u64,
    /// Bytes for weights in each memory, the fastest first.
    pub room: [u64; MEMORIES],
}

/// A walk over the portions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    next: Position,
    passed: u64,
    pinned: u64,
    used: [u64; MEMORIES],
}

impl Cursor {
    /// Before the first portion.
    pub fn start(portions: &Portions<'_>) -> Self {
        Self { next: portions.start(), passed: 0, pinned: 0, used: [0; MEMORIES] }
    }

    /// The next portion, and where it is.
    pub fn step(&mut self, portions: &Portions<'_>, pinning: &Pinning) -> Option<(Portion, Place)> {
        let portion = portions.portion(self.next)?;
        let (len, room) = (portion.len as u64, pinning.room.iter().sum::<u64>());
        // In halves of bytes: the middle of what is pinned is where it is due.
        let (pinned, passed) = (2 * self.pinned + len, 2 * self.passed + len);
        let due = u128::from(pinned) * u128::from(pinning.total) <= u128::from(room) * u128::from(passed);
        let slot = |memory: usize| {
            let used = self.used[memory];
            let offset = used + portion.start.wrapping_sub(used) % ALIGNMENT;
            (offset + len <= pinning.room[memory]).then_some((memory, offset))
        };
        let place = match (0..MEMORIES).find_map(slot).filter(|_| due) {
            Some((memory, offset)) => {
                self.used[memory] = offset + len;
                self.pinned += len;
                // Within a memory.
                Place::Pinned(memory, offset as usize)
            }
            None => Place::Home,
        };
        self.passed += len;
        self.next = portion.end;
        Some((portion, place))
    }
}
