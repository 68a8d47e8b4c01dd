//! Panels that fall silent, and panels of odd sizes.

use embedded_graphics::draw_target::DrawTargetExt;
use embedded_graphics::geometry::{Point, Size};
use embedded_graphics::primitives::Rectangle;
use llamita_display::Screen;

use crate::panel::{BARE, Panel, Silent};

const TEXT: &str =
    "Once upon a time there was a verylongwordthatdoesnotfitonanylineofanypanelofthesizesthatwehave é\n\n";

fn all<D>(screen: &mut Screen<D>) -> Result<(), D::Error>
where
    D: embedded_graphics::prelude::DrawTarget<Color = embedded_graphics::pixelcolor::Rgb565>,
{
    screen.start("a name that is rather long for a small panel")?;
    screen.progress(1, 3)?;
    screen.progress(2, 3)?;
    screen.progress(u64::MAX, u64::MAX)?;
    screen.progress(0, 0)?;
    for _ in 0..6 {
        screen.push(TEXT)?;
        screen.status(1.5, 1)?;
    }
    screen.message(TEXT.repeat(10))?;
    screen.clear()
}

/// An error comes back from wherever it happens, and a screen that is started again is as if it had not.
#[test]
fn silence_is_reported() {
    let (width, height) = (128, 64);
    let mut good = Screen::new(Panel::new(width, height));
    all(&mut good).unwrap();
    let windows = good.target().windows.len();
    for patience in 0..windows {
        let mut screen = Screen::new(Panel::new(width, height));
        screen.target().patience = patience;
        assert_eq!(all(&mut screen), Err(Silent), "{patience} of {windows}");
        // It goes on without a panic wherever it was.
        screen.target().patience = usize::MAX;
        screen.push(TEXT).unwrap();
        screen.progress(1, 2).unwrap();
        screen.target().patience = patience % 7;
        let _ = all(&mut screen);
        screen.target().patience = usize::MAX;
        all(&mut screen).unwrap();
    }
}

/// Panels too small to be of use, or larger than is planned for, are drawn as well as they can be. The panel itself
/// asserts that nothing is drawn beyond it.
#[test]
fn any_size() {
    for (width, height) in
        [(96, 64), (64, 48), (64, 128), (160, 160), (172, 320), (240, 240), (800, 480), (1024, 600)]
    {
        let mut screen = Screen::new(Panel::new(width, height));
        all(&mut screen).unwrap();
        let undrawn = screen.target().pixels.iter().filter(|&&pixel| pixel == BARE).count();
        assert_eq!(undrawn, 0, "{width}x{height}");
    }
}

/// Targets that do not begin at the origin: a part of a panel.
#[test]
fn part_of_a_panel() {
    let mut whole = Screen::new(Panel::new(240, 135));
    all(&mut whole).unwrap();
    whole.push(TEXT).unwrap();
    let whole = whole.release();

    let mut panel = Panel::new(320, 240);
    let before = panel.pixels.clone();
    let area = Rectangle::new(Point::new(40, 60), Size::new(240, 135));
    let mut screen = Screen::new(panel.clipped(&area));
    all(&mut screen).unwrap();
    screen.push(TEXT).unwrap();
    assert!(panel.part(area) == whole.pixels);
    let changed = panel.pixels.iter().zip(&before).filter(|(a, b)| a != b).count();
    assert!(changed <= 240 * 135);
}
