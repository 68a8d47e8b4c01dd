//! Firmware and models for boards: what is written where.

use std::fs;

use crate::files::{Folder, SMALL, model, text};
use crate::program::llamita;

const TABLE: usize = 0x8000;
/// Where the images of these tests have their partition for a model.
const MODEL: usize = 0x2_0000;

/// An image of an ESP32-S3's flash, with a partition of this size for a model.
fn image(size: u32) -> Vec<u8> {
    let entry = |label: &[u8], offset: u32, size: u32| {
        let mut entry = [&[0xAA, 0x50, 1, 6][..], &offset.to_le_bytes(), &size.to_le_bytes(), label].concat();
        entry.resize(32, 0);
        entry
    };
    let mut bytes = vec![0; 24];
    (bytes[0], bytes[12]) = (0xE9, 9);
    bytes.resize(TABLE, 0xFF);
    bytes.extend([entry(b"factory", 0x1_0000, 0x1_0000), entry(b"model", MODEL as u32, size)].concat());
    bytes.resize(0x1_0000, 0xFF);
    bytes.extend(b"the program");
    bytes
}

/// A model that is part of the program.
fn built_in(name: &str) -> Vec<u8> {
    fs::read(format!("{}/../../models/{name}.gguf", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// What a flash holds with this model.
fn flash(image: &[u8], model: &[u8]) -> Vec<u8> {
    let mut bytes = image.to_vec();
    bytes.resize(MODEL, 0xFF);
    bytes.extend(model);
    bytes
}

#[test]
fn an_image_has_firmware_and_model() {
    let folder = Folder::new();
    let program = image(2 << 20);
    let path = folder.write("firmware.bin", &program);
    let out = folder.path("flash.bin");
    let write = |more: &[&str]| {
        let said = llamita([&["flash", "--image-only", text(&out)], more].concat()).ok();
        assert!(said.contains("at 0x20000"), "{said}");
        fs::read(&out).unwrap()
    };
    assert!(write(&[text(&path)]) == flash(&program, &built_in("tiny")));
    assert!(write(&[text(&path), "-m", "nano"]) == flash(&program, &built_in("nano")));
    // The model in an image stays there, until there is another.
    let whole = folder.write("whole.bin", &fs::read(&out).unwrap());
    assert!(write(&[text(&whole)]) == flash(&program, &built_in("nano")));
    assert!(write(&[text(&whole), "--model", "tiny"]) == flash(&program, &built_in("tiny")));
}

#[test]
fn what_a_board_cannot_use_is_refused() {
    let folder = Folder::new();
    let out = folder.path("flash.bin");
    let write = |firmware: &[u8], model: &str| {
        let firmware = folder.write("firmware.bin", firmware);
        llamita(["flash", text(&firmware), "-m", model, "--image-only", text(&out)])
    };
    write(&image(0x1000), "nano").refused(1, &["firmware.bin", "its partition 4096", "smaller"]);
    write(b"\x7fELF", "nano").refused(1, &["firmware.bin", "save-image", "partitions.csv"]);
    write(b"GGUF", "nano").refused(1, &["not an image"]);
    write(&image(1 << 20)[..TABLE], "nano").refused(1, &["no partition table", "--merge"]);
    let checkpoint = folder.write("model.bin", &self::model(&SMALL));
    write(&image(1 << 20), text(&checkpoint)).refused(1, &["model.bin", "llamita convert"]);
    let floats = folder.path("floats.gguf");
    llamita(["convert", "nano", text(&floats), "--to", "gguf", "--quant", "q8"]).ok();
    write(&image(2 << 20), text(&floats)).refused(1, &["floats.gguf", "llamita convert"]);
    write(&image(1 << 20), "missing.gguf").refused(1, &["missing.gguf", "no such file"]);
    assert!(!out.exists());
    llamita(["flash", text(&folder.path("missing.bin"))]).refused(1, &["missing.bin", "cannot be read"]);
    llamita(["flash"]).refused(2, &["IMAGE"]);
    llamita(["flash", "-m", "nano", "--image-only", text(&out)]).refused(2, &["IMAGE"]);
}

/// With a program in the place of espflash, which writes to a file as that one does to a chip.
#[cfg(target_os = "linux")]
mod board {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::program::{Ended, command, end};
    use crate::serial_board::Board;

    const ESPFLASH: &str = r#"#!/bin/sh
task=$1
[ "$task" = --version ] && exit
echo "$@" >> "$FLASH.log"
case $task in
write-bin)
    shift $(($# - 2))
    dd if="$2" of="$FLASH" bs=4096 seek=$(($1 / 4096)) conv=notrunc 2> /dev/null ;;
read-flash)
    shift $(($# - 3))
    dd if="$FLASH" of="$3" bs=1024 skip=$(($1 / 1024)) count=$(($2 / 1024)) 2> /dev/null ;;
*) exit 9 ;;
esac
"#;

    /// Runs `llamita flash` with this program as espflash.
    fn run(folder: &Folder, espflash: &str, board: &Board, arguments: &[&str]) -> Ended {
        let programs = folder.path("programs");
        fs::create_dir_all(&programs).unwrap();
        let path = programs.join("espflash");
        fs::write(&path, espflash).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        with_path(folder, &format!("{}:/usr/bin:/bin", text(&programs)), board, arguments)
    }

    fn with_path(folder: &Folder, path: &str, board: &Board, arguments: &[&str]) -> Ended {
        let mut command = command([&["flash", "--port", &board.port], arguments].concat());
        command.env("PATH", path).env("FLASH", folder.path("chip.bin"));
        end(command)
    }

    fn chip(folder: &Folder) -> Vec<u8> {
        fs::read(folder.path("chip.bin")).unwrap()
    }

    #[test]
    fn a_board_is_written_and_its_console_opened() {
        let (folder, board) = (Folder::new(), Board::start());
        let program = image(2 << 20);
        let path = folder.write("firmware.bin", &program);
        run(&folder, ESPFLASH, &board, &[text(&path), "-m", "nano"]).ok();
        let written = flash(&program, &built_in("nano"));
        // Between the parts nothing is written.
        assert!(chip(&folder).iter().zip(&written).all(|(&found, &byte)| found == byte || byte == 0xFF));
        assert_eq!(chip(&folder).len(), written.len());
        board.wait_for(b"\x15");
        let log = fs::read_to_string(folder.path("chip.bin.log")).unwrap();
        let common =
            format!("--chip esp32s3 --non-interactive --skip-update-check --port {} --baud", board.port);
        for (line, part) in log.lines().zip(["460800 0x0 ", "460800 0x20000 "]) {
            assert!(line.starts_with(&format!("write-bin {common} {part}")), "{log}");
        }
        assert_eq!(log.lines().count(), 2);

        // Another model, for the firmware that is there.
        let ended = run(&folder, ESPFLASH, &board, &["-m", "tiny", "--no-monitor", "--flash-baud", "115200"]);
        assert_eq!(ended.ok(), "");
        assert!(chip(&folder)[MODEL..] == built_in("tiny"));
        assert!(chip(&folder).starts_with(&program[..0x8C00]));
        assert_eq!(board.heard(), b"\x15");
    }

    #[test]
    fn what_keeps_a_board_from_being_written_is_told() {
        let (folder, board) = (Folder::new(), Board::mute());
        let refused = |espflash: &str, arguments: &[&str], parts: &[&str]| {
            run(&folder, espflash, &board, arguments).refused(1, parts);
        };
        refused(
            "#!/bin/sh\n[ \"$1\" = --version ]",
            &["-m", "nano"],
            &["read-flash", "hold BOOT", &board.port],
        );
        folder.write("chip.bin", &[0xFF; 1 << 20]);
        refused(ESPFLASH, &["-m", "nano"], &[&board.port, "no partition table", "write the firmware too"]);
        folder.write("chip.bin", &image(0x1000));
        refused(ESPFLASH, &["-m", "nano"], &[&board.port, "its partition 4096"]);
        let empty = Path::new("/nonexistent");
        with_path(&folder, text(empty), &board, &["-m", "nano"])
            .refused(1, &["cargo install espflash --locked", "--image-only"]);
    }
}
