//! Reads ahead from a source, and repeats what fails.

use core::array;
use core::fmt;
use core::mem;

use crate::sector::{SECTOR, Sector, bytes};
use crate::source::{Finished, MOST_READS, Source, read_len};

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u64,
    /// Their number.
    pub len: usize,
}

impl Span {
    const fn first_sector(self) -> u64 {
        self.start / SECTOR as u64
    }

    /// Sectors that it touches.
    const fn sectors(self) -> usize {
        let end = (self.start + self.len as u64).div_ceil(SECTOR as u64);
        (end - self.first_sector()) as usize
    }

    /// The bytes themselves in the sectors.
    fn of(self, sectors: &[Sector]) -> &[u8] {
        let before = (self.start % SECTOR as u64) as usize;
        &bytes(sectors)[before..before + self.len]
    }
}

/// How often a read is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Tries of a read that fails, at least 1.
    pub tries: u32,
    /// Times that the source may lose its patience with one read.
    pub stalls: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { tries: 3, stalls: 3 }
    }
}

/// Why bytes could not be read, and how often it was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadError<E> {
    /// The first of the bytes.
    pub start: u64,
    /// Number of tries.
    pub tries: u32,
    /// The last reason.
    pub cause: Cause<E>,
}

/// What went wrong with a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause<E> {
    /// The source says why.
    Source(E),
    /// Fewer bytes came than the file has there: found, expected.
    Short(usize, usize),
    /// Nothing came.
    Stalled,
}

impl<E: fmt::Display> fmt::Display for Cause<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => error.fmt(f),
            Self::Short(found, expected) => write!(f, "{found} bytes came, expected {expected}"),
            Self::Stalled => f.write_str("nothing came"),
        }
    }
}

/// What was read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads that were finished.
    pub reads: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Reads that were repeated.
    pub retries: u64,
    /// Ticks of the clock spent waiting.
    pub waited: u64,
}

/// A read that was asked for.
struct Read<S: Source> {
    span: Span,
    /// Whether its memory is the one that is kept for single reads.
    single: bool,
    state: State<S>,
}

enum State<S: Source> {
    UnderWay,
    Here(S::Buffer),
    Failed(S::Buffer, Cause<S::Error>),
}

/// Reads from a source, some of them ahead.
pub struct Reader<S: Source> {
    source: S,
    free: [Option<S::Buffer>; MOST_READS],
    /// Memory for single reads.
    single: Option<S::Buffer>,
    /// The oldest first; they are under way in the same order.
    queue: [Option<Read<S>>; MOST_READS],
    queued: usize,
    current: Option<(Span, S::Buffer)>,
    patience: Patience,
    clock: Option<fn() -> u64>,
    stats: Stats,
}

impl<S: Source> Reader<S> {
    /// A reader with memory for portions, at least 1 and at most one less than [`MOST_READS`], and for single reads.
    pub fn new(source: S, buffers: impl IntoIterator<Item = S::Buffer>, single: S::Buffer) -> Self {
        let mut buffers = buffers.into_iter().take(MOST_READS - 1);
        Self {
            source,
            free: array::from_fn(|_| buffers.next()),
            single: Some(single),
            queue: [const { None }; MOST_READS],
            queued: 0,
            current: None,
            patience: Patience::default(),
            clock: None,
            stats: Stats::default(),
        }
    }

    /// The same, with another patience.
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The same, measuring what it waits.
    pub fn with_clock(self, clock: fn() -> u64) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// The source.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// What was read so far.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// How often a failing read is tried.
    pub const fn patience(&self) -> Patience {
        self.patience
    }

    /// Bytes of the shortest memory for portions.
    pub fn buffer_len(&self) -> usize {
        self.free.iter().flatten().map(|buffer| buffer.as_ref().len() * SECTOR).min().unwrap_or(0)
    }

    /// Bytes of the memory for single reads.
    pub fn single_len(&self) -> usize {
        self.single.as_ref().map_or(0, |buffer| buffer.as_ref().len() * SECTOR)
    }

    /// Gives up what was taken last, whose memory is used for what is read next.
    pub fn release(&mut self) {
        if let Some((_, buffer)) = self.current.take() {
            self.give_back(buffer, false);
        }
    }

    fn give_back(&mut self, buffer: S::Buffer, single: bool) {
        let free =
            if single { Some(&mut self.single) } else { self.free.iter_mut().find(|free| free.is_none()) };
        // There is a place for every buffer that came from one.
        if let Some(free) = free {
            *free = Some(buffer);
        }
    }

    /// Begins to read, behind what has been begun already, if there is memory.
    pub fn ahead(&mut self, span: Span) -> bool {
        let buffer = self.free.iter_mut().find_map(Option::take);
        buffer.is_some_and(|buffer| {
            self.enqueue(span, false, buffer);
            true
        })
    }

    fn enqueue(&mut self, span: Span, single: bool, buffer: S::Buffer) {
        self.timed(|reader| reader.source.start(span.first_sector(), span.sectors(), buffer));
        // One place for each buffer.
        self.queue[self.queued] = Some(Read { span, single, state: State::UnderWay });
        self.queued += 1;
    }

    fn dequeue(&mut self, index: usize) -> Option<Read<S>> {
        let read = self.queue[index].take();
        self.queue[index..self.queued].rotate_left(1);
        self.queued -= 1;
        read
    }

    /// Drops what was read ahead before `span`, and says whether that is the next.
    ///
    /// # Errors
    /// If what is dropped is still under way, and stays so.
    pub fn seek(&mut self, span: Span) -> Result<bool, ReadError<S::Error>> {
        while let Some(read) = &self.queue[0] {
            if read.span == span && !read.single {
                return Ok(true);
            }
            self.timed(|reader| reader.wait(0))?;
            if let Some(Read { single, state: State::Here(buffer) | State::Failed(buffer, _), .. }) =
                self.dequeue(0)
            {
                self.give_back(buffer, single);
            }
        }
        Ok(false)
    }

    /// Waits until a read of the queue has ended, well or not.
    fn wait(&mut self, index: usize) -> Result<(), ReadError<S::Error>> {
        let mut stalls = 0;
        while let Some(Read { state: State::UnderWay, span, .. }) = &self.queue[index] {
            let span = *span;
            let oldest =
                |read: &&mut Option<Read<S>>| matches!(read, Some(Read { state: State::UnderWay, .. }));
            let finished = self.source.finish();
            match (finished, self.queue.iter_mut().find(oldest)) {
                (Some(Finished { buffer, outcome }), Some(Some(read))) => {
                    let (first, count) = (read.span.first_sector(), read.span.sectors());
                    let expected = read_len(self.source.len(), first, count);
                    stalls = 0;
                    self.stats.reads += 1;
                    read.state = match outcome {
                        Ok(found) if found >= expected => {
                            self.stats.bytes += expected as u64;
                            State::Here(buffer)
                        }
                        Ok(found) => State::Failed(buffer, Cause::Short(found, expected)),
                        Err(error) => State::Failed(buffer, Cause::Source(error)),
                    };
                }
                _ => {
                    stalls += 1;
                    if stalls >= self.patience.stalls {
                        return Err(ReadError { start: span.start, tries: stalls, cause: Cause::Stalled });
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts the time of something as waiting: most for reads that end, some for media that are read at once.
    fn timed<R>(&mut self, wait: impl FnOnce(&mut Self) -> R) -> R {
        let begun = self.clock.map(|clock| clock());
        let result = wait(self);
        if let (Some(clock), Some(begun)) = (self.clock, begun) {
            self.stats.waited += clock().wrapping_sub(begun);
        }
        result
    }

    /// Waits for a read of the queue, repeats it where it fails, and takes its memory.
    fn fetch(&mut self, index: usize) -> Result<S::Buffer, ReadError<S::Error>> {
        let mut tries = 1;
        loop {
            self.timed(|reader| reader.wait(index))?;
            let failed = matches!(&self.queue[index], Some(Read { state: State::Failed(..), .. }));
            let again = failed && tries < self.patience.tries;
            if again {
                // Reads end in their order: the others have to be through before this one is the oldest again.
                self.timed(|reader| (0..reader.queued).try_for_each(|other| reader.wait(other)))?;
            }
            let Some(read) = &mut self.queue[index] else { unreachable!("a read that was asked for") };
            match mem::replace(&mut read.state, State::UnderWay) {
                State::Here(buffer) => {
                    self.dequeue(index);
                    return Ok(buffer);
                }
                State::Failed(buffer, _) if again => {
                    tries += 1;
                    self.stats.retries += 1;
                    let span = read.span;
                    self.timed(|reader| reader.source.start(span.first_sector(), span.sectors(), buffer));
                }
                State::Failed(buffer, cause) => {
                    let (start, single) = (read.span.start, read.single);
                    self.dequeue(index);
                    self.give_back(buffer, single);
                    return Err(ReadError { start, tries, cause });
                }
                State::UnderWay => unreachable!("a read that has ended"),
            }
        }
    }

    /// Takes bytes that were read ahead; they stay until the next are taken or released.
    ///
    /// # Errors
    /// If they were not asked for before, they are read now; if they cannot be, the reason.
    pub fn take(&mut self, span: Span) -> Result<(), ReadError<S::Error>> {
        self.release();
        if !self.seek(span)? {
            self.ahead(span);
        }
        let buffer = self.fetch(0)?;
        self.current = Some((span, buffer));
        Ok(())
    }

    /// What was taken.
    pub fn current(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], |(span, buffer)| span.of(buffer.as_ref()))
    }

    /// Reads a few bytes now, after what is under way already, and gives them to `use_them`.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn single<R>(
        &mut self,
        span: Span,
        use_them: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, ReadError<S::Error>> {
        // One that stalled may still be under way.
        while self.single.is_none() {
            let Some(index) =
                self.queue.iter().position(|read| read.as_ref().is_some_and(|read| read.single))
            else {
                unreachable!("the memory for single reads is here or under way");
            };
            // Nobody waits for it any more, however it ends.
            self.timed(|reader| reader.wait(index))?;
            if let Some(Read { state: State::Here(buffer) | State::Failed(buffer, _), .. }) =
                self.dequeue(index)
            {
                self.give_back(buffer, true);
            }
        }
        if let Some(buffer) = self.single.take() {
            self.enqueue(span, true, buffer);
        }
        let buffer = self.fetch(self.queued - 1)?;
        let result = use_them(span.of(buffer.as_ref()));
        self.give_back(buffer, true);
        Ok(result)
    }
}
