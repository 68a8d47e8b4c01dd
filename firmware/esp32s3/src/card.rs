//! An SD card at the chip's SDMMC host, on four lines or on one.

use core::cell::{Cell, RefCell};
use core::fmt;

use esp_hal::Blocking;
use esp_hal::dma::aligned::{DmaAlignedMut, InternalMemory};
use esp_hal::peripherals::SDHOST;
use esp_hal::sdmmc::{
    BlockingError, BusWidth, CommandFlags, Config, ResponseLen, SdHostController, Slot, SlotConfig,
};
use esp_hal::time::{Duration, Instant};
use llamita_storage::SECTOR;
use llamita_storage::sd::{Block, BlockCount, BlockDevice, BlockIdx};
use static_cell::{ConstStaticCell, StaticCell};

use crate::board::CardPins;

/// Clocks of the bus: to begin with, for any card, and for those that say they can.
const IDENTIFY: u32 = 400_000;
const DEFAULT_SPEED: u32 = 20_000_000;
const HIGH_SPEED: u32 = 40_000_000;

/// How long a card may take to start, by its specification.
const START: Duration = Duration::from_secs(1);

/// Blocks of a read whose memory is out of reach for the host's DMA.
const BOUNCE: usize = 16;

/// What a card did not do.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The host says why.
    Host(BlockingError),
    /// It did not start within a second.
    Slow,
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
            Self::Slow => f.write_str("it has not started within a second"),
            Self::ReadOnly => f.write_str("nothing is written here"),
        }
    }
}

impl core::error::Error for Fault {}

/// The slot for a card. What is in it is asked at the first read, and again after one that failed.
pub struct Card {
    bus: RefCell<Bus>,
    /// Blocks of the card that has been started.
    count: Cell<Option<u32>>,
}

struct Bus {
    slot: Slot<'static, 0, Blocking>,
    bounce: &'static mut InternalMemory<[u8; BOUNCE * SECTOR]>,
    /// The card is told addresses in bytes, as those of up to 2 GB are.
    by_bytes: bool,
}

impl Card {
    /// The host with its lines, before a card was looked for.
    pub fn new(host: SDHOST<'static>, pins: CardPins) -> Self {
        static HOST: StaticCell<SdHostController<'static>> = StaticCell::new();
        static BOUNCED: ConstStaticCell<InternalMemory<[u8; BOUNCE * SECTOR]>> =
            ConstStaticCell::new(InternalMemory::new([0; BOUNCE * SECTOR]));
        // The settings are the host's own.
        let Ok(host) = SdHostController::new(host, Config::default()) else { unreachable!("default settings") };
        let Ok(slot) = HOST.init(host).slot(SlotConfig::default()) else { unreachable!("the first slot") };
        let [data0, data1, data2, data3] = pins.data;
        let slot = slot.with_clk(pins.clock).with_cmd(pins.command).with_data0(data0);
        let slot = slot.with_data1(data1).with_data2(data2).with_data3(data3);
        Self { bus: RefCell::new(Bus { slot, bounce: BOUNCED.take(), by_bytes: false }), count: Cell::new(None) }
    }

    /// The card's number of blocks; starts it, if that has not been done.
    fn started(&self) -> Result<u32, Fault> {
        if let Some(count) = self.count.get() {
            return Ok(count);
        }
        let bus = &mut *self.bus.borrow_mut();
        // With four lines; with one where not all are there.
        let count = bus.start(BusWidth::Bit4).or_else(|_| bus.start(BusWidth::Bit1))?;
        self.count.set(Some(count));
        Ok(count)
    }
}

impl BlockDevice for Card {
    type Error = Fault;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), Fault> {
        self.started()?;
        let result = self.bus.borrow_mut().read(blocks, start.0);
        if result.is_err() {
            // It may be another one when it is asked next.
            self.count.set(None);
        }
        result
    }

    fn write(&self, _: &[Block], _: BlockIdx) -> Result<(), Fault> {
        Err(Fault::ReadOnly)
    }

    fn num_blocks(&self) -> Result<BlockCount, Fault> {
        self.started().map(BlockCount)
    }
}

impl Bus {
    fn command(&mut self, index: u8, argument: u32) -> Result<u32, Fault> {
        let flags = CommandFlags::default();
        Ok(self.slot.command_blocking(index, argument, ResponseLen::Short, true, flags)?[0])
    }

    /// Brings a card from wherever it is to where it can be read. Returns its number of blocks.
    ///
    /// The commands are those of the SD specification's simplified physical layer, chapter 4.
    fn start(&mut self, width: BusWidth) -> Result<u32, Fault> {
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
        self.by_bytes = conditions >> 30 & 1 == 0;
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
        Ok(count)
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

    fn read(&mut self, blocks: &mut [Block], mut start: u32) -> Result<(), Fault> {
        for blocks in blocks.chunks_mut(BOUNCE) {
            let address = if self.by_bytes { start * SECTOR as u32 } else { start };
            let bytes = self.bounced(18, address, SECTOR, blocks.len())?;
            for (block, bytes) in blocks.iter_mut().zip(bytes.chunks_exact(SECTOR)) {
                block.contents.copy_from_slice(bytes);
            }
            start += blocks.len() as u32;
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
