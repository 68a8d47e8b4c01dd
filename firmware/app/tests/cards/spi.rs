//! A card at an SPI, imitated byte for byte.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;

use embedded_hal::delay::DelayNs;
use embedded_hal::spi::{ErrorType, Operation, SpiDevice};
use llamita_firmware::{CardSpi, SpiCard, SpiCardError};
use llamita_storage::sd::{Block, BlockCount, BlockDevice, BlockIdx};

/// The data of a card of 3.7 GB: the specification's second layout, 0x1D69 half megabytes and one.
const DATA: [u8; 16] = [0x40, 0x0E, 0, 0x32, 0x5B, 0x59, 0, 0, 0x1D, 0x69, 0x7F, 0x80, 0x0A, 0x40, 0, 0x8B];
const BLOCKS: BlockCount = BlockCount((0x1D69 + 1) * 1024);
/// Times that it is asked before it has started.
const STARTING: u8 = 3;

/// A place for a card.
#[derive(Default)]
struct Place {
    card: Option<Card>,
    fast: bool,
    /// Bytes that were sent, slowly and fast.
    sent: [usize; 2],
}

/// A card that answers as the specification has it, and nothing to those who do not keep to it.
#[derive(Default)]
struct Card {
    /// What its blocks are filled with, beside their numbers.
    filling: u8,
    /// Bits that came while it was not selected.
    woken: usize,
    /// In the mode of SPI.
    spi: bool,
    /// Times that it was asked to start; it has when these are enough.
    asked: u8,
    command: Vec<u8>,
    commands: Vec<u8>,
    answer: VecDeque<u8>,
    /// The next block of a read of several.
    next: Option<u32>,
}

impl Card {
    fn new(filling: u8) -> Self {
        Self { filling, ..Self::default() }
    }

    fn exchange(&mut self, byte: u8, fast: bool) -> u8 {
        if let Some(block) = self.next
            && self.answer.is_empty()
        {
            self.next = Some(block + 1);
            self.send(&contents(block, self.filling));
        }
        let answer = self.answer.pop_front().unwrap_or(0xFF);
        if !self.command.is_empty() || byte >> 6 == 1 {
            self.command.push(byte);
        }
        if let &[command, a, b, c, d, _] = &self.command[..] {
            self.command.clear();
            // At more than 400 kHz it hears nothing before it has started.
            if self.woken >= 74 && !(fast && self.asked < STARTING) {
                self.obey(command & 0x3F, u32::from_be_bytes([a, b, c, d]));
            }
        }
        answer
    }

    fn obey(&mut self, command: u8, argument: u32) {
        if !self.spi && command != 0 {
            return;
        }
        self.commands.push(command);
        self.answer.clear();
        // It takes a byte to think.
        self.answer.push_back(0xFF);
        let idle = u8::from(self.asked < STARTING);
        match command {
            0 => {
                (self.spi, self.asked, self.next) = (true, 0, None);
                self.answer.push_back(1);
            }
            8 => self.answer.extend([idle, 0, 0, 1, argument as u8]),
            41 => {
                self.asked += 1;
                self.answer.push_back(u8::from(self.asked < STARTING));
            }
            // It is started, and addressed by blocks.
            58 => self.answer.extend([idle, 0xC0, 0xFF, 0x80, 0]),
            9 => {
                self.answer.push_back(idle);
                self.send(&DATA);
            }
            17 => {
                self.answer.push_back(idle);
                self.send(&contents(argument, self.filling));
            }
            18 => {
                self.answer.push_back(idle);
                self.next = Some(argument);
            }
            12 => {
                self.next = None;
                self.answer.push_back(idle);
            }
            _ => self.answer.push_back(idle),
        }
    }

    /// Sends data with their checksum.
    fn send(&mut self, data: &[u8]) {
        let mut sum = 0_u16;
        for &byte in data {
            sum ^= u16::from(byte) << 8;
            for _ in 0..8 {
                sum = if sum >> 15 == 1 { sum << 1 ^ 0x1021 } else { sum << 1 };
            }
        }
        self.answer.extend([0xFF, 0xFE]);
        self.answer.extend(data);
        self.answer.extend(sum.to_be_bytes());
    }
}

fn contents(block: u32, filling: u8) -> [u8; 512] {
    let mut bytes = [filling; 512];
    bytes[..4].copy_from_slice(&block.to_le_bytes());
    bytes
}

#[derive(Clone, Default)]
struct Spi(Rc<RefCell<Place>>);

impl Spi {
    fn send(&self, byte: u8) -> u8 {
        let place = &mut *self.0.borrow_mut();
        place.sent[usize::from(place.fast)] += 1;
        place.card.as_mut().map_or(0xFF, |card| card.exchange(byte, place.fast))
    }

    /// Puts a card in the place of what was there.
    fn insert(&self, card: Option<Card>) {
        self.0.borrow_mut().card = card;
    }
}

impl ErrorType for Spi {
    type Error = Infallible;
}

impl SpiDevice for Spi {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Infallible> {
        for operation in operations {
            match operation {
                Operation::Write(sent) => {
                    for &byte in *sent {
                        self.send(byte);
                    }
                }
                Operation::Transfer(taken, sent) => {
                    taken.iter_mut().zip(*sent).for_each(|(taken, &byte)| *taken = self.send(byte));
                }
                Operation::TransferInPlace(bytes) => {
                    bytes.iter_mut().for_each(|byte| *byte = self.send(*byte));
                }
                other => panic!("{other:?} is not what a card is asked by"),
            }
        }
        Ok(())
    }
}

impl CardSpi for Spi {
    fn wake(&mut self) -> Result<(), Infallible> {
        let place = &mut *self.0.borrow_mut();
        place.fast = false;
        place.sent[0] += 10;
        if let Some(card) = &mut place.card {
            card.woken += 80;
        }
        Ok(())
    }

    fn speed_up(&mut self) {
        self.0.borrow_mut().fast = true;
    }
}

struct NoTime;

impl DelayNs for NoTime {
    fn delay_ns(&mut self, _: u32) {}
}

/// Reads blocks from one on, which must be those of the card with that filling.
fn read(card: &SpiCard<Spi, NoTime>, start: u32, count: u32, filling: u8) -> Result<(), SpiCardError> {
    let mut blocks = vec![Block::new(); count as usize];
    card.read(&mut blocks, BlockIdx(start))?;
    for (block, number) in blocks.iter().zip(start..) {
        assert!(block.contents == contents(number, filling), "block {number}");
    }
    Ok(())
}

#[test]
fn a_card_starts_slowly_and_is_read_fast() {
    let spi = Spi::default();
    let card = SpiCard::new(spi.clone(), NoTime);
    spi.insert(Some(Card::new(7)));
    read(&card, 5, 3, 7).unwrap();
    let [slow, fast] = spi.0.borrow().sent;
    assert!(slow < 400, "{slow} bytes until it has started");
    assert!((3 * 512..3 * 512 + 100).contains(&fast), "{fast} bytes for three blocks");
    assert_eq!(card.num_blocks().unwrap(), BLOCKS);
    read(&card, 1000, 1, 7).unwrap();
    // It was started once, and several blocks were one read.
    let place = spi.0.borrow();
    let commands = &place.card.as_ref().unwrap().commands;
    assert_eq!(commands[commands.len() - 4..], [9, 18, 12, 17]);
    assert_eq!(place.sent[0], slow);
}

#[test]
fn an_empty_place_is_left_soon() {
    let spi = Spi::default();
    let card = SpiCard::new(spi.clone(), NoTime);
    assert!(matches!(read(&card, 0, 1, 0), Err(SpiCardError::Absent)));
    // Four milliseconds at 400 kHz.
    assert!(spi.0.borrow().sent[0] <= 200);
}

#[test]
fn a_card_that_was_put_in_starts_anew() {
    let spi = Spi::default();
    let card = SpiCard::new(spi.clone(), NoTime);
    spi.insert(Some(Card::new(1)));
    read(&card, 0, 2, 1).unwrap();
    spi.insert(Some(Card::new(2)));
    assert!(matches!(read(&card, 0, 2, 2), Err(SpiCardError::Card(_))));
    read(&card, 0, 2, 2).unwrap();
    spi.insert(None);
    assert!(matches!(read(&card, 0, 2, 2), Err(SpiCardError::Card(_))));
    assert!(matches!(read(&card, 0, 2, 2), Err(SpiCardError::Absent)));
}
