//! SPI2, the bus of the display and of an SD card. Each has the bus at its own clock.

use core::cell::RefCell;

use embassy_embedded_hal::SetConfig;
use embassy_embedded_hal::shared_bus::blocking::spi::SpiDeviceWithConfig;
use embassy_sync::blocking_mutex::NoopMutex;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embedded_hal::spi::{ErrorKind, ErrorType, Operation, SpiBus, SpiDevice};
use esp_hal::Blocking;
use esp_hal::dma::{DmaRxBuf, DmaTxBuf};
use esp_hal::gpio::{Input, InputConfig, Level, Output, OutputConfig, Pull};
use esp_hal::peripherals::{DMA_CH0, SPI2};
use esp_hal::spi::master::{Config, ConfigError, Spi, SpiDma};
use esp_hal::time::{Duration, Instant, Rate};
use esp_hal::{dma_rx_buffer, dma_tx_buffer};
use llamita_firmware::CardSpi;
use llamita_storage::SECTOR;
use static_cell::StaticCell;

use crate::board::{BusPins, SPI_CARD_CLOCK};

/// Bytes that the unit has room for. What is longer and comes back goes by DMA; what does not come back is of the display,
/// whose windows are short.
const ROOM: usize = 64;
/// How long a block may take: it needs 10 ms at the slowest clock.
const PATIENCE: Duration = Duration::from_millis(100);
/// The clock at which cards start.
const START: Rate = Rate::from_khz(400);

/// The bus, for all who are at it.
pub type Shared = NoopMutex<RefCell<Bus>>;
/// Who is at the bus: it has the bus for as long as it is selected.
pub type Device = SpiDeviceWithConfig<'static, NoopRawMutex, Bus, Output<'static>>;

/// The unit, which is the only one to drive the bus's clock: nobody at it can keep it waiting.
pub struct Bus {
    /// The unit and memory that DMA reaches, but while a block is exchanged.
    idle: Option<(SpiDma<'static, Blocking>, DmaRxBuf, DmaTxBuf)>,
    config: Config,
}

/// What went wrong with an exchange.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The unit says why.
    Unit(esp_hal::spi::Error),
    /// DMA did not end.
    Late,
}

impl From<esp_hal::spi::Error> for Fault {
    fn from(error: esp_hal::spi::Error) -> Self {
        Self::Unit(error)
    }
}

impl embedded_hal::spi::Error for Fault {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unit(error) => error.kind(),
            Self::Late => ErrorKind::Other,
        }
    }
}

/// The settings of a clock. What is not a block goes without DMA.
pub fn at(clock: Rate) -> Config {
    Config::default().with_frequency(clock).with_min_async_transfer_size(usize::MAX)
}

impl Bus {
    /// The bus, and the place for a card at it.
    pub fn start(
        unit: SPI2<'static>,
        channel: DMA_CH0<'static>,
        pins: BusPins,
    ) -> (&'static Shared, CardDevice) {
        static BUS: StaticCell<Shared> = StaticCell::new();
        let config = at(START);
        // Without a card the line is high, as if one had nothing to say.
        let back = Input::new(pins.back, InputConfig::default().with_pull(Pull::Up));
        // The clock is one that the unit's can be divided to.
        let Ok(unit) = Spi::new(unit, config) else { unreachable!("{START}") };
        let unit = unit.with_sck(pins.clock).with_mosi(pins.out).with_miso(back).with_dma(channel);
        let (Ok(rx), Ok(tx)) = (dma_rx_buffer!(SECTOR), dma_tx_buffer!(SECTOR)) else {
            unreachable!("a sector")
        };
        let bus = Self { idle: Some((unit, rx, tx)), config };
        let bus: &Shared = BUS.init(NoopMutex::new(RefCell::new(bus)));
        let select = Output::new(pins.card, Level::High, OutputConfig::default());
        (bus, CardDevice { bus, device: Device::new(bus, select, config) })
    }

    fn unit(&mut self) -> Result<&mut SpiDma<'static, Blocking>, Fault> {
        self.idle.as_mut().map(|(unit, ..)| unit).ok_or(Fault::Late)
    }

    /// Exchanges a sector at most by DMA.
    fn exchange(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        let (unit, rx, mut tx) = self.idle.take().ok_or(Fault::Late)?;
        let len = bytes.len();
        tx.as_mut_slice()[..len].copy_from_slice(bytes);
        let mut transfer = match unit.transfer_buffers(len, rx, len, tx) {
            Ok(transfer) => transfer,
            Err((error, unit, rx, tx)) => {
                self.idle = Some((unit, rx, tx));
                return Err(error.into());
            }
        };
        let begin = Instant::now();
        let mut late = false;
        while !late && !transfer.is_done() {
            late = begin.elapsed() > PATIENCE;
        }
        if late {
            transfer.cancel();
        }
        let (unit, (rx, tx)) = transfer.wait();
        bytes.copy_from_slice(&rx.as_slice()[..len]);
        self.idle = Some((unit, rx, tx));
        if late { Err(Fault::Late) } else { Ok(()) }
    }
}

impl ErrorType for Bus {
    type Error = Fault;
}

impl SpiBus for Bus {
    fn read(&mut self, words: &mut [u8]) -> Result<(), Fault> {
        Ok(self.unit()?.read(words)?)
    }

    fn write(&mut self, words: &[u8]) -> Result<(), Fault> {
        Ok(self.unit()?.write(words)?)
    }

    fn transfer(&mut self, read: &mut [u8], write: &[u8]) -> Result<(), Fault> {
        Ok(self.unit()?.transfer(read, write)?)
    }

    fn transfer_in_place(&mut self, words: &mut [u8]) -> Result<(), Fault> {
        if words.len() > ROOM {
            return words.chunks_mut(SECTOR).try_for_each(|words| self.exchange(words));
        }
        Ok(self.unit()?.transfer_in_place(words)?)
    }

    fn flush(&mut self) -> Result<(), Fault> {
        // All of the above return when the last bit was sent.
        Ok(())
    }
}

impl SetConfig for Bus {
    type Config = Config;
    type ConfigError = ConfigError;

    fn set_config(&mut self, config: &Config) -> Result<(), ConfigError> {
        // Most often it is the same device again.
        if self.config != *config {
            if let Some((unit, ..)) = &mut self.idle {
                unit.apply_config(config)?;
            }
            self.config = *config;
        }
        Ok(())
    }
}

/// The place for a card.
pub struct CardDevice {
    bus: &'static Shared,
    device: Device,
}

impl ErrorType for CardDevice {
    type Error = <Device as ErrorType>::Error;
}

impl SpiDevice for CardDevice {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Self::Error> {
        self.device.transaction(operations)
    }
}

impl CardSpi for CardDevice {
    fn wake(&mut self) -> Result<(), Self::Error> {
        self.device.set_config(at(START));
        self.bus.lock(|bus| {
            let mut bus = bus.borrow_mut();
            bus.set_config(&at(START)).map_err(|_| Self::Error::Config)?;
            bus.write(&[0xFF; 10]).map_err(Self::Error::Spi)
        })
    }

    fn speed_up(&mut self) {
        self.device.set_config(at(SPI_CARD_CLOCK));
    }
}
