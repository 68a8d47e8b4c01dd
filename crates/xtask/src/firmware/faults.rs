//! Media that are not as they should be: each is named, and the console lives on.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::board::{Board, FLASH_OFFSET, Medium, Worn, card_image, flash};
use super::card;
use super::emulator::Emulator;
use super::story::{MODEL, PROMPT, golden, quit, split};
use crate::ci::tools::root;

/// Bytes of a block of a card.
const BLOCK: usize = 512;

/// What is wrong, with what, what is typed, and what must be said.
struct Fault(&'static str, Medium, &'static str, &'static str);

/// Have a board meet them all.
pub fn check(board: &Board, emulate: impl Fn(&Medium, &Path) -> Result<Command>) -> Result<()> {
    let model = fs::read(root().join(MODEL)).with_context(|| format!("cannot read {MODEL}"))?;
    let faults = if board.has_card { of_card(&model)? } else { of_flash(&model)? };
    for Fault(what, medium, line, says) in &faults {
        let folder = tempfile::tempdir()?;
        let heard = survive(emulate(medium, folder.path())?, line)?;
        ensure!(
            heard.contains("error: ") && heard.contains(says),
            "{}, {what}: expected {says:?}, the board says\n{heard}",
            board.name
        );
        println!("\n{}, {what}: told, and the console lives on", board.name);
    }
    if board.has_card {
        read_again(&model, &emulate)?;
        println!("\n{}, a block that cannot be read once: read again", board.name);
        exchanged(&model, &emulate)?;
        println!("\n{}, a card that is taken out in a story, and put back: told, and read again", board.name);
    }
    Ok(())
}

/// Type a line; returns all that was said before it and of it. No text comes of it, and other lines are answered.
fn survive(command: Command, line: &str) -> Result<String> {
    let mut emulator = Emulator::start(command, true)?;
    let mut heard = emulator.wait_for(PROMPT)?;
    emulator.line(line)?;
    heard += &emulator.wait_for(PROMPT)?;
    emulator.line("/stats")?;
    let answer = emulator.wait_for(PROMPT)?;
    ensure!(answer.contains("error: no text was made yet"), "the console does not live on:\n{answer}");
    quit(emulator)?;
    Ok(heard)
}

fn of_flash(model: &[u8]) -> Result<Vec<Fault>> {
    let none = "there is no model in flash";
    let mut beyond = flash(model)?;
    beyond[8..16].fill(0xFF);
    let mut corrupt = flash(model)?;
    corrupt[FLASH_OFFSET + model.len() / 2] ^= 0x10;
    Ok(vec![
        Fault("flash without anything", Medium::Nothing, "", none),
        Fault("erased flash", Medium::Flash(vec![0xFF; 1 << 20]), "", none),
        Fault("a length beyond the flash", Medium::Flash(beyond), "", none),
        Fault("another file in flash", Medium::Flash(flash(b"Once upon a time")?), "", none),
        Fault("a truncated model", Medium::Flash(flash(&model[..model.len() / 2])?), "", "truncated"),
        Fault("a corrupt model", Medium::Flash(corrupt), "", "the checksum of tensor"),
    ])
}

fn of_card(model: &[u8]) -> Result<Vec<Fault>> {
    let with = |name, bytes: &[u8]| card::with_file(name, bytes).map(Medium::Card);
    let mut corrupt = model.to_vec();
    corrupt[model.len() / 2] ^= 0x10;
    let (whole, block) = worn(model)?;
    Ok(vec![
        Fault("no card", Medium::Nothing, "", "there is no card that answers"),
        Fault(
            "an empty card",
            Medium::Card(vec![0; 16 << 20]),
            "/models",
            "no partition with FAT16 or FAT32",
        ),
        Fault(
            "a card with exFAT",
            Medium::Card(card::with_exfat()),
            "/models",
            "no partition with FAT16 or FAT32",
        ),
        Fault("no model", with("story.txt", b"Once upon a time")?, "", "the card has no .gguf file"),
        Fault("a file that is missing", with("a.gguf", model)?, "/model b.gguf", "the card has no such file"),
        Fault("a truncated model", with("half.gguf", &model[..model.len() / 2])?, "", "truncated"),
        Fault("a corrupt model", with("odd.gguf", &corrupt)?, "", "the checksum of tensor"),
        Fault(
            "a block that cannot be read",
            Medium::WornCard(whole, block, Worn::Always),
            "",
            "the checksum of tensor",
        ),
    ])
}

/// A card with a model, and the block in the middle of the model.
fn worn(model: &[u8]) -> Result<(Vec<u8>, u64)> {
    let whole = card::with_file("nano.gguf", model)?;
    let middle = model.chunks_exact(BLOCK).nth(model.len() / BLOCK / 2).context("a model has blocks")?;
    let block = whole.chunks_exact(BLOCK).position(|block| block == middle).context("a file is in blocks")?;
    Ok((whole, block as u64))
}

/// The emulated card gives what it has read before where it cannot read, without a word: the checksums notice.
fn read_again(model: &[u8], emulate: impl Fn(&Medium, &Path) -> Result<Command>) -> Result<()> {
    let (whole, block) = worn(model)?;
    let folder = tempfile::tempdir()?;
    let command = emulate(&Medium::WornCard(whole, block, Worn::Once), folder.path())?;
    let mut emulator = Emulator::start(command, true)?;
    emulator.wait_for(PROMPT)?;
    let statistics = begins_well(&mut emulator)?;
    ensure!(statistics.contains(", 1 retries"), "nothing was read again: {statistics}");
    quit(emulator)?;
    Ok(())
}

/// Takes the card out in the midst of a story, and puts it back.
fn exchanged(model: &[u8], emulate: impl Fn(&Medium, &Path) -> Result<Command>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let command = emulate(&Medium::Card(card::with_file("nano.gguf", model)?), folder.path())?;
    let mut emulator = Emulator::start(command, true)?;
    emulator.wait_for(PROMPT)?;
    emulator.line("/temp 0")?;
    emulator.wait_for(PROMPT)?;
    emulator.line("")?;
    emulator.wait_for_part(golden()?.split(',').next().unwrap_or_default())?;
    emulator.command("eject -f sd0")?;
    let heard = emulator.wait_for(PROMPT)?;
    ensure!(
        heard.contains("error: tensor ") && heard.contains(" cannot be read"),
        "this is no error:\n{heard}"
    );
    emulator.line("")?;
    let heard = emulator.wait_for(PROMPT)?;
    ensure!(heard.contains("error: there is no model"), "this is no error:\n{heard}");
    emulator.command(&format!("change sd0 \"{}\" raw", card_image(folder.path()).display()))?;
    emulator.line("/model")?;
    emulator.wait_for(PROMPT)?;
    begins_well(&mut emulator)?;
    quit(emulator)?;
    Ok(())
}

/// Have the first tokens of the story told that is known; returns the statistics.
fn begins_well(emulator: &mut Emulator) -> Result<String> {
    for line in ["/temp 0", "/steps 4"] {
        emulator.line(line)?;
        emulator.wait_for(PROMPT)?;
    }
    emulator.line("")?;
    let (story, statistics) = split(&emulator.wait_for(PROMPT)?)?;
    ensure!(!story.is_empty() && golden()?.starts_with(&story), "the board tells {story:?}");
    Ok(statistics)
}
