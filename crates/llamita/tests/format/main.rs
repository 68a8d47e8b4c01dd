//! Model files: what is read of good ones, and what is said of bad ones.

mod builder;
#[path = "../common/data.rs"]
mod data;
mod device;
mod gguf;
mod llama2c;

use builder::{CONFIG, Gguf, SHARED, damage, tensors, v0, v1};
use llamita::Resident;
use llamita::config::Config;
use llamita::format::{FormatError, Kind, Model, TensorName};
use llamita::tokenizer::GgufVocabulary;
use llamita::weights::{Blocks, Entry, Format, Matrix, Norm, Tape, Tensor};
use proptest::prelude::*;

/// Everything that reading a file does.
pub fn load(bytes: &[u8]) -> Result<(Config, Vec<Entry>, Option<GgufVocabulary<'_>>), FormatError> {
    let model = Model::read(bytes)?;
    let mut entries = vec![Entry::EMPTY; Tape::len(model.config())];
    model.tape(&mut entries)?;
    Ok((*model.config(), entries, model.vocabulary()?))
}

/// What is said of a file.
#[track_caller]
pub fn refusal(bytes: &[u8]) -> String {
    let text = load(bytes).unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Every tensor has its place if its first and its last weight are its own.
#[track_caller]
fn assert_tape(bytes: &[u8], config: &Config, entries: &[Entry]) {
    for (name, rows, columns, index) in tensors(config) {
        let Entry { offset, format, .. } = entries[index];
        assert_eq!(format, Format::F32);
        let (first, last) = (offset as usize, offset as usize + 4 * (rows * columns - 1));
        let expected = index as f32 + 1.0;
        assert_eq!((f32_at(bytes, first), f32_at(bytes, last)), (expected, expected), "{name}");
    }
    assert_eq!(entries.len(), Tape::len(config));
    if config.shared_classifier {
        assert_eq!(entries.first(), entries.last());
    }
}

#[test]
fn good_files_are_read() {
    for config in [CONFIG, SHARED] {
        for (bytes, kind) in [
            (v0(&config), Kind::Llama2cV0),
            (v1(&config), Kind::Llama2cV1),
            (Gguf::new(&config).bytes(), Kind::Gguf),
        ] {
            let (found, entries, vocabulary) = load(&bytes).unwrap();
            assert_eq!(found, config);
            assert_tape(&bytes, &config, &entries);
            assert_eq!(vocabulary.is_some(), kind == Kind::Gguf);
            let model = Model::read(&bytes).unwrap();
            assert_eq!(model.kind(), kind);
            assert_eq!(model.name(), (kind == Kind::Gguf).then_some("tiny"));
        }
    }
}

/// What is said of weights whose file begins `at` bytes into aligned memory and has `len` bytes there,
/// with the tape of the whole file.
fn not_resident(bytes: &[u8], at: usize, len: usize) -> Option<String> {
    let model = Model::read(bytes).unwrap();
    let mut entries = vec![Entry::EMPTY; Tape::len(model.config())];
    let tape = model.tape(&mut entries).unwrap();
    let mut words = vec![0_u64; bytes.len() / 8 + 2];
    let memory = &mut zerocopy::IntoBytes::as_mut_bytes(&mut words[..])[at..];
    memory[..bytes.len()].copy_from_slice(bytes);
    Resident::new(tape, &memory[..len]).err().map(|error| error.to_string())
}

#[test]
fn tape_wants_its_memory() {
    let bytes = v1(&CONFIG);
    let model = Model::read(&bytes).unwrap();
    let text = model.tape(&mut [Entry::EMPTY; 20]).unwrap_err().to_string();
    assert_eq!(text, "20 entries were lent for the tape, this model has 21: lend as many as Tape::len says");
}

#[test]
fn weights_want_aligned_memory() {
    let mut halves = Gguf::new(&CONFIG);
    halves.halve("token_embd.weight", 1, 0x3c00);
    for (bytes, alignment) in [(v0(&CONFIG), 4), (Gguf::new(&CONFIG).bytes(), 4), (halves.bytes(), 2)] {
        assert_eq!(not_resident(&bytes, 0, bytes.len()), None);
        assert_eq!(not_resident(&bytes, 4, bytes.len()), None);
        let text = format!(
            "tensor token_embd.weight is not at a multiple of {alignment} in memory: \
             map the file, or read it into memory that is aligned to 64 bytes"
        );
        assert_eq!(not_resident(&bytes, 1, bytes.len()), Some(text));
    }
    // Halves are content with less, until floats come.
    let text = not_resident(&halves.bytes(), 2, halves.bytes().len()).unwrap();
    assert!(text.starts_with("tensor blk.0.attn_norm.weight is not at a multiple of 4 in memory"), "{text}");
}

#[test]
fn weights_want_the_file_of_their_tape() {
    for (bytes, last) in [
        (v0(&CONFIG), Tensor::Matrix(Matrix::Classifier)),
        (v0(&SHARED), Tensor::Norm(Norm::Final)),
        (Gguf::new(&CONFIG).bytes(), Tensor::Matrix(Matrix::Classifier)),
    ] {
        let (config, entries, _) = load(&bytes).unwrap();
        let tape = Tape::new(config, &entries).unwrap();
        let end = (tape.entry(last).offset + tape.bytes(last)) as usize;
        assert_eq!(not_resident(&bytes, 0, end), None);
        for len in [end - 1, end - 4] {
            let text = format!(
                "the file is {len} bytes, its tensor {} ends at {end}: \
                 it is truncated or damaged, copy or download it again",
                TensorName(last)
            );
            assert_eq!(not_resident(&bytes, 0, len), Some(text));
        }
        let text = not_resident(&bytes, 0, 0).unwrap();
        assert!(text.starts_with("the file is 0 bytes, its tensor token_embd.weight ends at "), "{text}");
    }
}

#[test]
fn memory_for_the_tape_may_hold_anything() {
    let bytes = Gguf::new(&SHARED).bytes();
    let model = Model::read(&bytes).unwrap();
    let mut entries = [Entry { offset: 77, format: Format::F16, checksum: Some(7) }; 21];
    model.tape(&mut entries).unwrap();
    assert_tape(&bytes, &SHARED, &entries);
}

#[test]
fn other_files_are_named() {
    for (bytes, text) in [
        (&b""[..], "it is empty; copy or download it again"),
        (b"PK\x03\x04", "it is a zip archive; export a PyTorch checkpoint with llama2.c's export.py"),
        (b"\x1f\x8b\x08", "it is compressed with gzip; unpack it"),
        (b"lmgg\x01", "it is a predecessor of GGUF; convert the original model to GGUF"),
        (
            b"\x20\x00\x00\x00\x00\x00\x00\x00{\"__metadata__\"",
            "it is safetensors; convert its folder with `llamita convert FOLDER model.gguf`",
        ),
        (b"\n <!DOCTYPE html><html>", "it is a web page; download the file itself"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "it is a Git LFS pointer; get the file itself with `git lfs pull`",
        ),
        (
            b"\x07\0\0\0\0\0\0\0\x05\0\0\0<unk>\0\0\0\0\x05\0\0\0\n<s>\n",
            "it is a llama2.c tokenizer; give the model file here",
        ),
        (b"\n\x0e\n\x05<unk>\x15\0\0\0\0", "it is a sentencepiece tokenizer; give the model file here"),
        (
            b"Once upon a time, there was a little llama.",
            "it is neither GGUF nor a llama2.c checkpoint (read as one, dim is 1701015119, \
             expected at most 16777216)",
        ),
    ] {
        assert_eq!(refusal(bytes), format!("not a model file that llamita reads: {text}"));
    }
}

#[test]
fn norms_are_finite() {
    for (number, index) in [(f32::NAN, 0), (f32::INFINITY, 3), (f32::NEG_INFINITY, 7)] {
        let text = format!(
            "weight {index} of tensor blk.1.ffn_norm.weight is infinite or not a number: \
             the file is damaged, copy or download it again"
        );
        let mut file = Gguf::new(&CONFIG);
        file.tensor("blk.1.ffn_norm.weight").data[4 * index..][..4].copy_from_slice(&number.to_le_bytes());
        assert_eq!(refusal(&file.bytes()), text);
        for mut file in [v0(&CONFIG), v1(&CONFIG)] {
            let at = load(&file).unwrap().1[15].offset as usize + 4 * index;
            file[at..at + 4].copy_from_slice(&number.to_le_bytes());
            assert_eq!(refusal(&file), text);
        }
    }
}

#[test]
fn truncated_files_are_refused_at_every_length() {
    for config in [CONFIG, SHARED] {
        let device = Gguf::device(&config, 4, Some(32));
        for file in [Gguf::new(&config).bytes(), device.bytes(), v1(&config), v0(&config)] {
            for len in 0..file.len() {
                let text = refusal(&file[..len]);
                assert!(!text.is_empty());
            }
        }
    }
    let bytes = Gguf::new(&CONFIG).bytes();
    assert_eq!(
        refusal(&bytes[..4]),
        "the header at byte 4 takes 4 bytes, the file has 0 more: \
         it is truncated or damaged, copy or download it again"
    );
    assert_eq!(
        refusal(&bytes[..200]),
        "the list of tensors at byte 16 takes 504 bytes, the file has 184 more: \
         it is truncated or damaged, copy or download it again"
    );
    let huge = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        refusal(&bytes)
    };
    assert!(huge(8).starts_with("the list of tensors at byte 16 takes 18446744073709551615 bytes"));
    assert!(huge(16).starts_with("the metadata at byte 24 takes 18446744073709551615 bytes"));
    assert!(huge(24).starts_with("a metadata key at byte 32 takes 18446744073709551615 bytes"));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..2000), mark in 0..4) {
        match mark {
            0 => bytes.splice(0..0, *b"GGUF\x03\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0").for_each(drop),
            1 => bytes.splice(0..0, *b"24ka\x01\0\0\0").for_each(drop),
            // Small numbers, as in a header of version 0.
            2 => bytes.as_chunks_mut().0.iter_mut().for_each(|word| *word = [word[0] % 9, 0, 0, 0]),
            _ => (),
        }
        if let Err(error) = load(&bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn damaged_files_are_survived(
        mut edits in prop::collection::vec(any::<u8>(), 4..32),
        file in 0..4,
        head in any::<bool>(),
    ) {
        let mut bytes = match file {
            0 => v0(&CONFIG),
            1 => v1(&SHARED),
            2 => Gguf::device(&CONFIG, 8, Some(32)).bytes(),
            _ => Gguf::new(&CONFIG).bytes(),
        };
        // The header is where it hurts.
        edits.as_chunks_mut::<4>().0.iter_mut().filter(|_| head).for_each(|edit| edit[1] &= 3);
        damage(&mut bytes, &edits);
        if let Err(error) = load(&bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

const STORIES_260K: Config = Config {
    dim: 64,
    hidden_dim: 172,
    n_layers: 5,
    n_heads: 8,
    n_kv_heads: 4,
    head_size: 8,
    vocab_size: 512,
    seq_len: 512,
    norm_eps: 1e-5,
    rope_theta: 10000.0,
    shared_classifier: true,
};

#[test]
fn stories260k_is_the_same_in_both_versions() {
    let Some(v0) = data::read("data/models/stories260K.bin") else { return };
    let Some(v1) = data::read("data/models/stories260K-v1.bin") else { return };
    let (config, places_v0, _) = load(&v0).unwrap();
    assert_eq!(config, STORIES_260K);
    let (config, places_v1, _) = load(&v1).unwrap();
    assert_eq!(config, STORIES_260K);
    let (tape_v0, tape_v1) = (Tape::new(config, &places_v0).unwrap(), Tape::new(config, &places_v1).unwrap());
    for tensor in Tape::tensors(&config) {
        let bytes = tape_v0.bytes(tensor) as usize;
        let [at_v0, at_v1] = [tape_v0, tape_v1].map(|tape| tape.entry(tensor).offset as usize);
        assert!(v0[at_v0..at_v0 + bytes] == v1[at_v1..at_v1 + bytes], "{tensor:?}");
    }
}

#[test]
fn stories260k_in_int8_has_to_be_repacked() {
    let Some(gguf) = data::read("data/models/stories260K-Q8_0.gguf") else { return };
    let (_, entries, _) = load(&gguf).map_err(|error| error.to_string()).unwrap();
    assert_eq!(entries[0].format, Format::Blocks(Blocks::Q8_0));
    assert_eq!(
        not_resident(&gguf, 0, gguf.len()).unwrap(),
        "tensor token_embd.weight is Q8_0, which has to be repacked before it is used: \
         convert the file with `llamita convert`"
    );
    let model = Model::read(&gguf).unwrap();
    assert_eq!(*model.config(), STORIES_260K);
    assert_eq!(model.name(), Some("t"));
    let vocabulary = model.vocabulary().unwrap().unwrap();
    assert_eq!((vocabulary.count, vocabulary.scores.len()), (512, 4 * 512));
    assert_eq!((vocabulary.bos, vocabulary.eos, vocabulary.unknown), (1, 2, Some(0)));
}

#[test]
fn tokenizers_are_not_models() {
    for (path, kind) in [
        ("data/models/tok512.bin", "llama2.c"),
        ("data/models/tokenizer-32000.bin", "llama2.c"),
        ("data/models/tok512.model", "sentencepiece"),
    ] {
        let Some(bytes) = data::read(path) else { return };
        assert!(refusal(&bytes).contains(&format!("it is a {kind} tokenizer")), "{path}");
    }
}
