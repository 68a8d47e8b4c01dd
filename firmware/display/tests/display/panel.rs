//! A panel in memory that counts what it is told.

use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::{DrawTarget, Pixel, PointsIter, RgbColor};
use embedded_graphics::primitives::Rectangle;

/// Colour of a panel that nothing was drawn on. Nothing is drawn in it, so that what is left out shows.
pub const BARE: Rgb565 = Rgb565::MAGENTA;

/// The panel does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silent;

/// Pixels, and what was drawn.
pub struct Panel {
    pub size: Size,
    pub pixels: Vec<Rgb565>,
    /// Pixels that were sent.
    pub drawn: usize,
    /// Rectangles that were sent, which are as many windows on a panel.
    pub windows: Vec<Rectangle>,
    /// Rectangles after which the panel falls silent.
    pub patience: usize,
}

impl Panel {
    pub fn new(width: u32, height: u32) -> Self {
        let pixels = vec![BARE; (width * height) as usize];
        Self { size: Size::new(width, height), pixels, drawn: 0, windows: Vec::new(), patience: usize::MAX }
    }

    /// Forgets the counts.
    pub fn rest(&mut self) {
        self.drawn = 0;
        self.windows.clear();
    }

    /// Pixels of an area.
    pub fn part(&self, area: Rectangle) -> Vec<Rgb565> {
        let width = self.size.width as usize;
        area.points().map(|point| self.pixels[point.y as usize * width + point.x as usize]).collect()
    }
}

impl OriginDimensions for Panel {
    fn size(&self) -> Size {
        self.size
    }
}

impl DrawTarget for Panel {
    type Color = Rgb565;
    type Error = Silent;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb565>>>(&mut self, _: I) -> Result<(), Silent> {
        panic!("single pixels are dear on a panel");
    }

    fn fill_contiguous<I: IntoIterator<Item = Rgb565>>(
        &mut self,
        area: &Rectangle,
        colours: I,
    ) -> Result<(), Silent> {
        self.patience = self.patience.checked_sub(1).ok_or(Silent)?;
        assert!(!area.is_zero_sized(), "nothing is drawn");
        self.windows.push(*area);
        let mut colours = colours.into_iter();
        for Point { x, y } in area.points() {
            let Size { width, height } = self.size;
            assert!(
                (0..width as i32).contains(&x) && (0..height as i32).contains(&y),
                "{area:?} is beyond the panel"
            );
            self.pixels[y as usize * width as usize + x as usize] =
                colours.next().expect("a colour for every pixel");
            self.drawn += 1;
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, colour: Rgb565) -> Result<(), Silent> {
        if area.is_zero_sized() {
            return Ok(());
        }
        self.fill_contiguous(area, area.points().map(|_| colour))
    }
}
