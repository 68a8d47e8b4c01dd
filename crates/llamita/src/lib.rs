//! llamita runs Llama-family language models on machines that seem too small for them.
//!
//! The engine does no I/O, prints nothing and allocates nothing: the caller lends memory and gets typed
//! errors. From a file in memory to a story:
//!
//! ```
//! use llamita::{CacheFormat, Capacity, Engine, Generation, Kernels, Model, Resident, Sampler, Settings, Solo, State};
//! use llamita::{Tape, Tokenizer, state_len};
//! # use llamita::weights::Entry;
//!
//! fn tell(model_file: &[u8], tokenizer_file: &[u8]) -> Result<String, Box<dyn std::error::Error>> {
//!     let model = Model::read(model_file)?;
//!     let config = *model.config();
//!     let mut entries = vec![Entry::EMPTY; Tape::len(&config)];
//!     let weights = Resident::new(model.tape(&mut entries)?, model_file)?;
//!
//!     let cache = CacheFormat::F32;
//!     let capacity = Capacity { context: config.seq_len, batch: 8, logits: 1, cache };
//!     let mut memory = vec![0.0; state_len(&config, capacity)?];
//!     let state = State::new(&config, capacity, &mut memory)?;
//!     let mut engine = Engine::new(weights, state, Solo, Kernels::detect());
//!
//!     let mut index = vec![0; Tokenizer::index_len(config.vocab_size)];
//!     let tokenizer = Tokenizer::from_bin(tokenizer_file, config.vocab_size, &mut index)?;
//!     let mut tokens = vec![tokenizer.bos(); 257];
//!     let mut sampler = Sampler::new(Settings::default(), 42)?;
//!     let stop = [tokenizer.bos(), tokenizer.eos()];
//!     let mut story = Generation::new(&mut engine, &mut sampler, &mut tokens, 1, stop)?;
//!
//!     let (mut text, mut utf8, mut last) = (String::new(), llamita::Utf8Stream::new(), tokenizer.bos());
//!     while let Some(token) = story.next()? {
//!         for bytes in tokenizer.decode(last, token) {
//!             utf8.push(bytes, |piece| text.push_str(piece));
//!         }
//!         last = token;
//!     }
//!     utf8.finish(|piece| text.push_str(piece));
//!     Ok(text)
//! }
//! # assert!(tell(&[], &[]).is_err());
//! ```

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("model files are little-endian and used in place: big-endian targets are not supported");

pub mod config;
pub mod draft;
pub mod format;
pub mod forward;
pub mod generate;
mod heap;
pub mod profile;
mod resident;
mod rope;
pub mod sampler;
pub mod state;
pub mod tokenizer;
pub mod weights;

pub use config::Config;
pub use draft::{Draft, DraftModel, Lookup, Speculation};
pub use format::Model;
pub use forward::{Engine, Error};
pub use generate::{Generation, Stop};
pub use llamita_kernels::{CacheFormat, Kernels, LANES, Rows, Solo, Team};
pub use profile::{Profile, Stage};
pub use resident::{Resident, rows_of};
pub use sampler::{Sampler, Settings};
pub use state::{Capacity, State, state_len};
pub use tokenizer::{Tokenizer, Utf8Stream};
pub use weights::{Tape, Weights};
