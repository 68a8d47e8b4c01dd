//! The llama, drawn by hand.

use embedded_graphics::geometry::{Point, Size};
use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::DrawTarget;
use embedded_graphics::primitives::Rectangle;

use crate::palette::{CREAM, FAWN, ROSE, TEAL, UMBER};

/// A square picture whose lower part, the legs, has some poses. A byte is a pixel: `w`ool, `s`hade, `d`ark,
/// `r`ose, `t`eal; all else is background.
pub struct Llama {
    /// Pixels of a side.
    pub side: u32,
    body: &'static [u8],
    legs: [&'static [u8]; 4],
}

impl Llama {
    /// Draws all of it.
    pub fn draw<D: DrawTarget<Color = Rgb565>>(
        &self,
        target: &mut D,
        at: Point,
        step: u8,
        paper: Rgb565,
    ) -> Result<(), D::Error> {
        let rows = self.body.len() as u32 / self.side;
        let body = Rectangle::new(at, Size::new(self.side, rows));
        target.fill_contiguous(&body, self.body.iter().map(|&byte| ink(byte, paper)))?;
        self.draw_legs(target, at, step, paper)
    }

    /// Draws what moves: a third of the picture.
    pub fn draw_legs<D: DrawTarget<Color = Rgb565>>(
        &self,
        target: &mut D,
        at: Point,
        step: u8,
        paper: Rgb565,
    ) -> Result<(), D::Error> {
        let legs = self.legs[usize::from(step) % self.legs.len()];
        let top = self.body.len() as i32 / self.side as i32;
        let area =
            Rectangle::new(at + Point::new(0, top), Size::new(self.side, legs.len() as u32 / self.side));
        target.fill_contiguous(&area, legs.iter().map(|&byte| ink(byte, paper)))
    }
}

fn ink(byte: u8, paper: Rgb565) -> Rgb565 {
    match byte {
        b'w' => CREAM,
        b's' => FAWN,
        b'd' => UMBER,
        b'r' => ROSE,
        b't' => TEAL,
        _ => paper,
    }
}

/// For title bars of 28 pixels.
pub static LARGE: Llama = Llama {
    side: 24,
    body: b"\
        ................w.w.....\
        ................ww.w....\
        ...............www.ww...\
        ...............wwwwww...\
        ..............wwwdwwwww.\
        ..............wwwwwwwwdd\
        ..............wwwwwwwsss\
        ..............swwwwwsss.\
        ..............swwww.....\
        ..............swwww.....\
        ..w...........swwww.....\
        .www.wwwrrttrrwwwww.....\
        .swwwwwwrrttrrwwwww.....\
        ..swwwwwrrttrrwwwww.....\
        ..wwwwwwrrttrrwwwww.....\
        ..wwwwwwrrttrrwwwww.....\
        ..swwwwwwwwwwwwwwws.....",
    legs: [
        // Standing.
        b"\
        ..sswwwwwwwwwwwwwss.....\
        ...sswwsssssssswwss.....\
        ...ss.ww......ss.ww.....\
        ...ss.ww......ss.ww.....\
        ...ss.ww......ss.ww.....\
        ...ss.ww......ss.ww.....\
        ...dd.dd......dd.dd.....",
        // The near legs go forwards.
        b"\
        ..sswwwwwwwwwwwwwss.....\
        ...sswwsssssssswwss.....\
        ..ss...ww....ss..ww.....\
        ..ss...ww....ss...ww....\
        .ss.....ww..ss....ww....\
        .ss.....ww..ss.....dd...\
        .dd.....dd..dd..........",
        // Passing.
        b"\
        ..sswwwwwwwwwwwwwss.....\
        ...sswwsssssssswwss.....\
        ....ssww.......ssww.....\
        ....ssww.......ssww.....\
        ....ssww.......ssww.....\
        ....ddww.......ddww.....\
        ......dd.........dd.....",
        // The far legs go forwards.
        b"\
        ..sswwwwwwwwwwwwwss.....\
        ...sswwsssssssswwss.....\
        ...ww..ss.....ww.ss.....\
        ..ww...ss.....ww..ss....\
        ..ww....ss...ww...ss....\
        .ww.....dd...ww....ss...\
        .dd..........dd....dd...",
    ],
};

/// For title bars of 12 pixels.
pub static SMALL: Llama = Llama {
    side: 12,
    body: b"\
        .......w.w..\
        .......www..\
        .......wdwww\
        .......wwwws\
        .......ww...\
        w..rtr.ww...\
        wwwrtrwww...\
        .wwrtrwww...",
    legs: [
        b"\
        .swwwwwws...\
        .s.w..s.w...\
        .s.w..s.w...\
        .d.d..d.d...",
        b"\
        .swwwwwws...\
        .s.w..s.w...\
        s...ws...w..\
        d...dd...d..",
        b"\
        .swwwwwws...\
        ..sw...sw...\
        ..sw...sw...\
        ..dd...dd...",
        b"\
        .swwwwwws...\
        .w.s..w.s...\
        w...sw...s..\
        d...dd...d..",
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_square() {
        for llama in [&LARGE, &SMALL] {
            for legs in llama.legs {
                assert_eq!(llama.body.len() + legs.len(), (llama.side * llama.side) as usize);
                assert!(llama.body.iter().chain(legs).all(|byte| b".wsdrt".contains(byte)));
            }
            assert_eq!(llama.body.len() as u32 % llama.side, 0);
        }
    }
}
