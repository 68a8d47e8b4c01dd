//! What the fuzz targets share: each does with its input all that the engine would do.

#[path = "../../crates/llamita/tests/format/builder.rs"]
pub mod builder;
pub mod placed;

use llamita::format::Model;
use llamita::tokenizer::{TokenizerError, Work};
use llamita::weights::{Entry, Tape, Tensor};
use llamita::{CacheFormat, Capacity, Engine, Kernels, Resident, Solo, State, Tokenizer, Weights, state_len};
use zerocopy::IntoBytes;

/// Loads a model file as a program would, and uses what it found.
pub fn load(bytes: &[u8]) {
    // Messages are a part of it, they print what the file says.
    let model = match Model::read(bytes) {
        Ok(model) => model,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let config = *model.config();
    config.check().unwrap();
    assert!(model.chat_template().is_none_or(|template| template.len() < bytes.len()));
    assert!(model.name().is_none_or(|name| name.len() < bytes.len()));

    let mut entries = vec![Entry::EMPTY; Tape::len(&config)];
    match model.tape(&mut entries) {
        Ok(tape) => {
            for tensor in Tape::tensors(&config) {
                let Entry { offset, format, .. } = tape.entry(tensor);
                assert!(offset != 0 && offset.is_multiple_of(format.alignment()));
                assert!(offset + tape.bytes(tensor) <= bytes.len() as u64, "{tensor:?}");
            }
            // All that was looked at is in the header.
            let header = &bytes[..bytes.len().min(model.header_len() as usize)];
            let from_header = Model::read_header(header, bytes.len() as u64).unwrap();
            let mut again = vec![Entry::EMPTY; Tape::len(&config)];
            let again = from_header.tape(&mut again).unwrap();
            assert!(Tape::tensors(&config).all(|tensor| again.entry(tensor) == tape.entry(tensor)));
            // An input of the fuzzer is aligned to nothing, and may be refused for that.
            if let Ok(weights) = Resident::new(tape, bytes) {
                let norms = Tape::tensors(&config).filter_map(|tensor| match tensor {
                    Tensor::Norm(norm) => Some(norm),
                    _ => None,
                });
                for norm in norms {
                    assert_eq!(weights.norm(norm).len(), config.dim);
                    assert!(weights.norm(norm).iter().all(|weight| weight.is_finite()));
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Err(error) = model.verify() {
        assert!(!error.to_string().is_empty());
    }
    match model.vocabulary() {
        Ok(Some(vocabulary)) => {
            let mut index = vec![0; vocabulary.index_len()];
            match Tokenizer::from_gguf(&vocabulary, &mut index) {
                Ok(tokenizer) => use_tokenizer(&tokenizer, "Once upon a time\u{2581}, caf\u{e9} 🦙\0"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        Ok(None) => (),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Runs the engine on a model file, if that can be used in place.
pub fn forward(bytes: &[u8]) {
    // Aligned, which an input of the fuzzer is not.
    let mut words = vec![0_u64; bytes.len().div_ceil(8)];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(padded);
    }
    let bytes = &words.as_bytes()[..bytes.len()];
    let Ok(model) = Model::read(bytes) else { return };
    let config = *model.config();
    let mut entries = vec![Entry::EMPTY; Tape::len(&config)];
    let Ok(tape) = model.tape(&mut entries) else { return };
    let Ok(weights) = Resident::new(tape, bytes) else { return };
    for cache in [CacheFormat::F32, CacheFormat::Q8] {
        let capacity = Capacity { context: 4, batch: 3, logits: 1, cache };
        let mut memory = vec![f32::NAN; state_len(&config, capacity).unwrap()];
        let state = State::new(&config, capacity, &mut memory).unwrap();
        let mut engine = Engine::new(weights, state, Solo, Kernels::detect());
        // Numbers may be anything, but the pass comes to its end.
        assert_eq!(engine.forward(&[0, 0, 0], 0, 1).unwrap().len(), config.vocab_size);
        assert_eq!(engine.forward(&[0], 3, 1).unwrap().len(), config.vocab_size);
    }
}

/// Encodes a text and decodes every token.
pub fn use_tokenizer(tokenizer: &Tokenizer<'_>, text: &str) {
    for token in (0..tokenizer.vocab_size() as u32 + 2).chain([u32::MAX]) {
        assert!(tokenizer.decode(tokenizer.bos(), token).map(<[u8]>::len).sum::<usize>() < 1 << 32);
    }
    for result in [encode(tokenizer, text), encode_special(tokenizer, text)] {
        match result {
            Ok(tokens) => assert!(tokens.iter().all(|&token| (token as usize) < tokenizer.vocab_size())),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// Encodes a text with as much memory as is always enough.
pub fn encode(tokenizer: &Tokenizer<'_>, text: &str) -> Result<Vec<u32>, TokenizerError> {
    let (mut scratch, mut tokens) = memory(text);
    let count = tokenizer.encode(text, &mut scratch, &mut tokens)?;
    tokens.truncate(count);
    Ok(tokens)
}

/// The same, with control tokens in the text.
pub fn encode_special(tokenizer: &Tokenizer<'_>, text: &str) -> Result<Vec<u32>, TokenizerError> {
    let (mut scratch, mut tokens) = memory(text);
    let count = tokenizer.encode_special(text, &mut scratch, &mut tokens)?;
    tokens.truncate(count);
    Ok(tokens)
}

fn memory(text: &str) -> (Vec<Work>, Vec<u32>) {
    let scratch = vec![Work::EMPTY; Tokenizer::scratch_len(text.len())];
    (scratch, vec![0; Tokenizer::max_tokens(text.len())])
}
