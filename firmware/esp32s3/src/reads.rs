//! Reads of an SD card by DMA, which go on while the cores compute.

use core::cell::{Cell, RefCell};
use core::convert::Infallible;
use core::future::{Future, poll_fn};
use core::marker::PhantomData;
use core::ops::Range;
use core::pin::{Pin, pin};
use core::ptr::NonNull;
use core::slice;
use core::task::{Context, Poll, Waker};

use aligned::{A4, Aligned};
use esp_hal::Async;
use esp_hal::sdmmc::Slot;
use esp_hal::time::{Duration, Instant};
use llamita_storage::sd::{BlockIdx, Moved, Mover};
use llamita_storage::{SECTOR, Sector};
use sdio::common::read_multiple_blocks;
use sdio::{MmcBus, MmcError};

use crate::card::{Device, Fault};

/// How long a read may take. The host gives up itself when nothing came for 0.8 seconds, at the slower clock.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is read. The driver's reads are futures, whose types have no names: so there is one that lives as long as the
/// program, [`Desk::serve`], and does what is noted here whenever somebody polls it. The host itself needs no one: it has
/// the whole read when the driver has begun it, and the driver's interrupt goes on with long ones.
pub struct Desk {
    slot: RefCell<Slot<'static, 0, Async>>,
    note: Cell<Note>,
}

/// Where a read is.
#[derive(Clone, Copy)]
enum Note {
    /// There is none.
    Free,
    /// It is to be begun: the address on the card, and the memory.
    Wanted(u32, NonNull<[Sector]>),
    /// The host is at it.
    UnderWay,
    /// The host is to leave it.
    Enough,
    /// The host is through with it and with its memory, and how; or has left it.
    Ended(Option<Result<(), MmcError>>),
}

impl Desk {
    /// Nothing is read yet.
    pub const fn new(slot: Slot<'static, 0, Async>) -> Self {
        Self { slot: RefCell::new(slot), note: Cell::new(Note::Free) }
    }

    /// The slot, for commands. Nobody has it when no read is under way.
    pub const fn slot(&self) -> &RefCell<Slot<'static, 0, Async>> {
        &self.slot
    }

    /// Does one read after the other.
    pub async fn serve(&self) -> Infallible {
        loop {
            let (address, memory) = poll_fn(|_| match self.note.get() {
                Note::Wanted(address, memory) => Poll::Ready((address, memory)),
                _ => Poll::Pending,
            })
            .await;
            self.note.set(Note::UnderWay);
            let outcome = self.read(address, memory).await;
            self.note.set(Note::Ended(outcome));
        }
    }

    /// `None` when it was left. It is over then as well: what is dropped here stops the DMA.
    async fn read(&self, address: u32, memory: NonNull<[Sector]>) -> Option<Result<(), MmcError>> {
        // SAFETY: Whoever noted it has lent the memory until the note says that the read has ended, which it does after this
        // function; and does not forget that (see `Reads`). A sector is 512 bytes, aligned to more than four.
        let blocks = unsafe {
            let first = memory.cast::<Aligned<A4, [u8; SECTOR]>>();
            slice::from_raw_parts_mut(first.as_ptr(), memory.len())
        };
        let mut slot = self.slot.borrow_mut();
        // The host ends it by its own command, also where it is one block.
        let mut read = pin!(slot.read_blocks(read_multiple_blocks(address, blocks), true));
        poll_fn(|context| match (read.as_mut().poll(context), self.note.get()) {
            (Poll::Ready(outcome), _) => Poll::Ready(Some(outcome.map(drop))),
            (Poll::Pending, Note::Enough) => Poll::Ready(None),
            (Poll::Pending, _) => Poll::Pending,
        })
        .await
    }
}

/// The desk, and who serves it.
pub struct Served<'c> {
    desk: &'c Desk,
    serving: RefCell<Pin<&'c mut dyn Future<Output = Infallible>>>,
}

impl<'c> Served<'c> {
    /// With [`Desk::serve`] of the same desk.
    pub const fn new(desk: &'c Desk, serving: Pin<&'c mut dyn Future<Output = Infallible>>) -> Self {
        Self { desk, serving: RefCell::new(serving) }
    }

    /// The slot, for commands.
    pub const fn slot(&self) -> &'c RefCell<Slot<'static, 0, Async>> {
        self.desk.slot()
    }

    /// Lets it go on, and returns how far it is.
    fn poll(&self) -> Note {
        // Whoever wants to know looks: nobody has to be woken.
        let Poll::Pending = self.serving.borrow_mut().as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.desk.note.get()
    }

    /// Waits until no read is under way, and says whether that is so.
    pub fn settle(&self) -> bool {
        let begin = Instant::now();
        while matches!(self.poll(), Note::Wanted(..) | Note::UnderWay | Note::Enough) {
            if begin.elapsed() > PATIENCE {
                return false;
            }
        }
        true
    }

    /// Takes note of a read that has ended.
    fn take(&self) -> Option<Option<Result<(), MmcError>>> {
        let Note::Ended(outcome) = self.poll() else { return None };
        self.desk.note.set(Note::Free);
        Some(outcome)
    }
}

/// Reads of a text, one at a time, to memory that is lent for them. It must not be forgotten (`mem::forget`) while a read is
/// under way, which ends with it.
pub struct Reads<'s, 'c> {
    card: &'s Device<'c>,
    moving: Option<Moving>,
    lent: PhantomData<&'s mut [Sector]>,
}

/// A read that was begun.
struct Moving {
    /// All of the memory that comes back.
    buffer: NonNull<[Sector]>,
    /// Why the host has not been asked at all.
    refused: Option<Fault>,
}

impl<'s, 'c> Reads<'s, 'c> {
    /// Of this card.
    pub const fn new(card: &'s Device<'c>) -> Self {
        Self { card, moving: None, lent: PhantomData }
    }
}

impl<'s> Mover for Reads<'s, '_> {
    type Error = Fault;
    type Buffer = &'s mut [Sector];

    fn begin(&mut self, first: BlockIdx, buffer: &'s mut [Sector], sectors: Range<usize>) {
        let mut buffer = NonNull::from(buffer);
        // SAFETY: It was borrowed for `'s`, and nobody has it until it is given back.
        let memory = NonNull::from(unsafe { &mut buffer.as_mut()[sectors] });
        let begun = self.card.address(first.0).map(|address| {
            self.card.served.desk.note.set(Note::Wanted(address, memory));
            self.card.served.poll();
        });
        self.moving = Some(Moving { buffer, refused: begun.err() });
    }

    fn poll(&mut self) -> Option<Moved<Self>> {
        let Moving { mut buffer, refused } = self.moving.take()?;
        let outcome = match refused {
            Some(fault) => Err(fault),
            None => match self.card.served.take() {
                Some(Some(outcome)) => outcome.map_err(Fault::Read),
                Some(None) => Err(Fault::Late),
                None => {
                    self.moving = Some(Moving { buffer, refused });
                    return None;
                }
            },
        };
        if outcome.is_err() {
            self.card.give_up();
        }
        // SAFETY: It was borrowed for `'s`. The host has not been told of it, or is through with it, and `moving`, which
        // had it, has it no more.
        Some((unsafe { buffer.as_mut() }, outcome))
    }

    fn wait(&mut self) -> Option<Moved<Self>> {
        self.card.served.settle();
        self.poll()
    }
}

impl Drop for Reads<'_, '_> {
    fn drop(&mut self) {
        if self.moving.is_some() && self.wait().is_none() {
            // It ends now, whatever the host is at.
            self.card.served.desk.note.set(Note::Enough);
            self.poll();
        }
    }
}
