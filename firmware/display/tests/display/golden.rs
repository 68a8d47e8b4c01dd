//! Pictures, pixel by pixel. `UPDATE_GOLDEN=1 cargo test` writes them anew; then look at them.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;

use embedded_graphics::geometry::Size;
use embedded_graphics::pixelcolor::RgbColor;

use crate::panel::Panel;

/// Of all three channels a byte, as PNG has them.
fn bytes(panel: &Panel) -> Vec<u8> {
    let wide = |value: u8, max: u8| (u16::from(value) * 255 / u16::from(max)) as u8;
    panel
        .pixels
        .iter()
        .flat_map(|pixel| [wide(pixel.r(), 31), wide(pixel.g(), 63), wide(pixel.b(), 31)])
        .collect()
}

/// The panel shows what the picture of that name does.
pub fn compare(panel: &Panel, name: &str) {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("png");
    let Size { width, height } = panel.size;
    let pixels = bytes(panel);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut encoder = png::Encoder::new(File::create(&path).unwrap(), width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::High);
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        return;
    }
    let file =
        File::open(&path).unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1?", path.display()));
    let mut reader = png::Decoder::new(BufReader::new(file)).read_info().unwrap();
    let mut golden = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut golden).unwrap();
    assert_eq!((info.width, info.height, info.color_type), (width, height, png::ColorType::Rgb), "{name}");
    let differing = pixels.chunks(3).zip(golden.chunks(3)).filter(|(a, b)| a != b).count();
    assert_eq!(differing, 0, "{name}: that many pixels differ");
}
