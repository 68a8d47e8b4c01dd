//! An SD card at the chip's SDMMC host, on four lines or on one.

use core::cell::{Cell, RefCell, RefMut};
use core::convert::Infallible;
use core::fmt;
use core::future::Future;
use core::pin::Pin;

use esp_hal::Async;
use esp_hal::dma::aligned::{DmaAlignedMut, InternalMemory};
use esp_hal::peripherals::SDHOST;
use esp_hal::sdmmc::{
    BlockingError, BusWidth, CommandFlags, Config, ResponseLen, SdHostController, Slot, SlotConfig,
};
use esp_hal::time::{Duration, Instant};
use llamita_storage::SECTOR;
use llamita_storage::sd::{Block, BlockCount, BlockDevice, BlockIdx, Extents, SdAhead};
use sdio::MmcError;
use static_cell::{ConstStaticCell, StaticCell};

use crate::board::CardPins;
use crate::reads::{Desk, Reads, Served};

/// Clocks of the bus: to begin with, for any card, and for those that say they can.
const IDENTIFY: u32 = 400_000;
const DEFAULT_SPEED: u32 = 20_000_000;
const HIGH_SPEED: u32 = 40_000_000;

/// How long a card may take to start, by its specification.
const START: Duration = Duration::from_secs(1);

/// Blocks of a read whose memory may be out of reach for the host's DMA.
const BOUNCE: usize = 16;

/// What a card did not do.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The host says why.
    Host(BlockingError),
    /// The same, of a read that went on while the cores computed.
    Read(MmcError),
    /// It did not start within a second.
    Slow,
    /// A read did not end.
    Late,
    /// Nothing is written to cards here.
    ReadOnly,
}

impl From<BlockingError> for Fault {
    fn from(error: BlockingError) -> Self {
        Self::Host(error)
    }
}

impl From<esp_hal::sdmmc::Error> for Fault {
    fn from(error: esp_hal::sdmmc::Error) -> Self {
        Self::Host(BlockingError::Op(error))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::Read(error) => error.fmt(f),
            Self::Slow => f.write_str("it has not started within a second"),
            Self::Late => f.write_str("a read did not end"),
            Self::ReadOnly => f.write_str("nothing is written here"),
        }
    }
}

impl core::error::Error for Fault {}

/// The host with its lines, before a card was looked for.
pub fn host(host: SDHOST<'static>, pins: CardPins) -> Desk {
    static HOST: StaticCell<SdHostController<'static>> = StaticCell::new();
    // The settings are the host's own.
    let Ok(host) = SdHostController::new(host, Config::default()) else { unreachable!("default settings") };
    let Ok(slot) = HOST.init(host).slot(SlotConfig::default()) else { unreachable!("the first slot") };
    let [data0, data1, data2, data3] = pins.data;
    let slot = slot.with_clk(pins.clock).with_cmd(pins.command).with_data0(data0);
    Desk::new(slot.with_data1(data1).with_data2(data2).with_data3(data3).into_async())
}

/// A card whose files are looked up while the caller waits, and read while the cores compute.
pub struct Card<'c>(Device<'c>);

impl<'c> Card<'c> {
    /// The host's card, which was not looked for yet, and [`Desk::serve`] of the same desk.
    pub fn new(desk: &'c Desk, serving: Pin<&'c mut dyn Future<Output = Infallible>>) -> Self {
        static BOUNCED: ConstStaticCell<InternalMemory<[u8; BOUNCE * SECTOR]>> =
            ConstStaticCell::new(InternalMemory::new([0; BOUNCE * SECTOR]));
        let (served, bounce) = (Served::new(desk, serving), RefCell::new(BOUNCED.take()));
        Self(Device { served, bounce, started: Cell::new(None) })
    }
}

impl<'c> llamita_firmware::Card for Card<'c> {
    type Device = Device<'c>;
    type Source<'s>
        = SdAhead<'s, Reads<'s, 'c>>
    where
        Self: 's;

    /// One that the cores compute with, and one that the host fills.
    const BUFFERS: usize = 2;

    fn device(&self) -> &Device<'c> {
        &self.0
    }

    fn source<'s>(&'s self, extents: Extents<'s>) -> Self::Source<'s> {
        SdAhead::new(Reads::new(&self.0), extents)
    }
}

/// The slot for a card. What is in it is asked at the first read, and again after one that failed.
pub struct Device<'c> {
    /// Reads that go on meanwhile.
    pub served: Served<'c>,
    bounce: RefCell<&'static mut Bounce>,
    started: Cell<Option<Started>>,
}

type Bounce = InternalMemory<[u8; BOUNCE * SECTOR]>;

/// A card that can be read.
#[derive(Clone, Copy)]
struct Started {
    /// Its number of blocks.
    count: u32,
    /// It is told addresses in bytes, as those of up to 2 GB are.
    by_bytes: bool,
}

impl Device<'_> {
    /// The bus, as soon as no read is under way.
    fn bus(&self) -> Result<Bus<'_>, Fault> {
        if !self.served.settle() {
            return Err(Fault::Late);
        }
        Ok(Bus { slot: self.served.slot().borrow_mut(), bounce: self.bounce.borrow_mut() })
    }

    /// The card, which is started if that has not been done.
    fn started(&self) -> Result<Started, Fault> {
        if let Some(started) = self.started.get() {
            return Ok(started);
        }
        let mut bus = self.bus()?;
        // With four lines; with one where not all are there.
        let started = bus.start(BusWidth::Bit4).or_else(|_| bus.start(BusWidth::Bit1))?;
        self.started.set(Some(started));
        Ok(started)
    }

    /// What the card is told to read from a block on.
    pub fn address(&self, block: u32) -> Result<u32, Fault> {
        let Started { by_bytes, .. } = self.started()?;
        Ok(if by_bytes { block * SECTOR as u32 } else { block })
    }

    /// After a read that failed: the card may be another one when it is asked next.
    pub fn give_up(&self) {
        self.started.set(None);
        if let Ok(mut bus) = self.bus() {
            bus.stop();
        }
    }
}

impl BlockDevice for Device<'_> {
    type Error = Fault;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), Fault> {
        let mut first = start.0;
        for blocks in blocks.chunks_mut(BOUNCE) {
            let address = self.address(first)?;
            let outcome = self.bus()?.read(blocks, address);
            outcome.inspect_err(|_| self.give_up())?;
            first += blocks.len() as u32;
        }
        Ok(())
    }

    fn write(&self, _: &[Block], _: BlockIdx) -> Result<(), Fault> {
        Err(Fault::ReadOnly)
    }

    fn num_blocks(&self) -> Result<BlockCount, Fault> {
        self.started().map(|started| BlockCount(started.count))
    }
}

/// The bus, while it is one's own.
struct Bus<'b> {
    slot: RefMut<'b, Slot<'static, 0, Async>>,
    bounce: RefMut<'b, &'static mut Bounce>,
}

impl Bus<'_> {
    fn command(&mut self, index: u8, argument: u32) -> Result<u32, Fault> {
        let flags = CommandFlags::default();
        Ok(self.slot.command_blocking(index, argument, ResponseLen::Short, true, flags)?[0])
    }

    /// Brings a card from wherever it is to where it can be read.
    ///
    /// The commands are those of the SD specification's simplified physical layer, chapter 4.
    fn start(&mut self, width: BusWidth) -> Result<Started, Fault> {
        let none = CommandFlags::default();
        self.slot.set_bus_low_level(BusWidth::Bit1, IDENTIFY)?;
        self.slot.send_init_sequence()?;
        self.slot.command_blocking(0, 0, ResponseLen::None, false, none)?;
        // 2.7 to 3.6 V, and a pattern that comes back.
        self.command(8, 0x1AA)?;
        let begin = Instant::now();
        let conditions = loop {
            self.command(55, 0)?;
            // More than 2 GB are welcome, at all voltages that the host has. The answer has no checksum.
            let answer = self.slot.command_blocking(41, 0x40FF_8000, ResponseLen::Short, false, none)?[0];
            if answer >> 31 == 1 {
                break answer;
            }
            if begin.elapsed() > START {
                return Err(Fault::Slow);
            }
        };
        self.slot.command_blocking(2, 0, ResponseLen::Long, true, none)?;
        let address = self.command(3, 0)? & 0xFFFF_0000;
        let data = self.slot.command_blocking(9, address, ResponseLen::Long, true, none)?;
        let count = blocks(data);
        let busy = CommandFlags { busy: true, ..none };
        self.slot.command_blocking(7, address, ResponseLen::Short, true, busy)?;
        if matches!(width, BusWidth::Bit4) {
            self.command(55, address)?;
            self.command(6, 2)?;
        }
        self.slot.set_bus_low_level(width, DEFAULT_SPEED)?;
        if self.switched_to_high_speed() {
            self.slot.set_bus_low_level(width, HIGH_SPEED)?;
        }
        // Whether all lines are there shows only now.
        self.bounced(17, 0, SECTOR, 1)?;
        Ok(Started { count, by_bytes: conditions >> 30 & 1 == 0 })
    }

    /// Ends what a read has left under way at the card and at the host, which takes no other command before.
    fn stop(&mut self) {
        let stop = CommandFlags { stop_abort: true, ..CommandFlags::default() };
        // A card that is not reading does not answer.
        let _ = self.slot.command_blocking(12, 0, ResponseLen::Short, true, stop);
    }

    /// Asks the card for the faster timing. Those that know no such question answer nothing.
    fn switched_to_high_speed(&mut self) -> bool {
        const STATUS: usize = 64;
        // Function 1 of group 1 shall be set, of all others none. The answer says in byte 16 what is set.
        self.bounced(6, 0x80FF_FFF1, STATUS, 1).is_ok_and(|status| status[16] & 0xF == 1)
    }

    /// Reads to memory that DMA reaches.
    fn bounced(&mut self, command: u8, argument: u32, size: usize, count: usize) -> Result<&[u8], Fault> {
        let bounce = self.bounce.get_mut().into_inner();
        let memory = &mut bounce[..size * count];
        // SAFETY: The whole is aligned as DMA wants it, and so is its beginning; what is read is a multiple of four.
        let aligned = unsafe { DmaAlignedMut::new_unchecked(&mut *memory) };
        self.slot.read_blocks_blocking(command, argument, aligned, size as u16, count as u32)?;
        Ok(memory)
    }

    fn read(&mut self, blocks: &mut [Block], address: u32) -> Result<(), Fault> {
        // The driver ends a read of many blocks, but not one of many that has one.
        let command = if blocks.len() > 1 { 18 } else { 17 };
        let bytes = self.bounced(command, address, SECTOR, blocks.len())?;
        for (block, bytes) in blocks.iter_mut().zip(bytes.chunks_exact(SECTOR)) {
            block.contents.copy_from_slice(bytes);
        }
        Ok(())
    }
}

/// A card's number of blocks, by its data: chapter 5.3 of the specification.
fn blocks(data: [u32; 4]) -> u32 {
    let field = |bit: usize, width: u32| {
        let all = u64::from(data[bit / 32]) | u64::from(data.get(bit / 32 + 1).copied().unwrap_or(0)) << 32;
        (all >> (bit % 32)) as u32 & ((1 << width) - 1)
    };
    if field(126, 2) == 0 {
        // In blocks of a length that is a power of two as well.
        (field(62, 12) + 1) << (field(47, 3) + 2 + field(80, 4) - 9)
    } else {
        // In half megabytes.
        (field(48, 22) + 1) * 1024
    }
}
