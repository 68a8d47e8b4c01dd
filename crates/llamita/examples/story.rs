//! Tells greedy stories with the engine alone: `story [--scalar] [--threads N] [--kv q8] FILE...`.
//!
//! The files are GGUF with their vocabulary inside, and of models as small as stories260K; no memory is
//! allocated for the engine. First comes a line with what computes, then for each file a line with its name,
//! and the story.
//!
//! Compiled to WebAssembly, without the standard library, it is a module instead: `put` brings in a file,
//! word by word, `story` tells its story, `text_byte` reads what it has to say. Everyone's stories must be the
//! same to the byte.

#![cfg_attr(target_family = "wasm", no_std, no_main)]
#![expect(clippy::result_large_err, reason = "without an allocator a failure carries its own text")]

use core::error::Error;
use core::fmt::{self, Write};

use llamita::weights::Entry;
use llamita::{
    CacheFormat, Capacity, Engine, Generation, Kernels, Model, Resident, Sampler, Settings, State, Tape,
    Team, Tokenizer, Utf8Stream, state_len,
};

/// Tokens of a story, after BOS.
const LENGTH: usize = 256;

/// What the engine borrows, enough for models of the size of stories260K.
struct Memory {
    entries: [Entry; 64],
    index: [u32; 4096],
    state: [f32; 1 << 17],
    tokens: [u32; LENGTH + 1],
}

impl Memory {
    const EMPTY: Self = Self {
        entries: [Entry::EMPTY; 64],
        index: [0; 4096],
        state: [0.0; 1 << 17],
        tokens: [0; LENGTH + 1],
    };
}

/// Why there is no story, in words.
struct Failure {
    text: [u8; 400],
    len: usize,
}

impl Failure {
    fn new(reason: impl fmt::Display) -> Self {
        let mut failure = Self { text: [0; 400], len: 0 };
        // What does not fit is cut off.
        let _ = write!(failure, "{reason}");
        failure
    }

    fn text(&self) -> &str {
        core::str::from_utf8(&self.text[..self.len]).unwrap_or_default()
    }
}

impl Write for Failure {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.text.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// As much of the memory as is asked for.
fn part<'m, T>(memory: &'m mut [T], len: usize, what: &str) -> Result<&'m mut [T], Failure> {
    let all = memory.len();
    memory.get_mut(..len).ok_or_else(|| {
        Failure::new(format_args!("{len} elements of memory for the {what} are needed, here are {all}"))
    })
}

/// Tells the most likely story of a model to `out`, piece by piece.
fn tell(
    file: &[u8],
    memory: &mut Memory,
    team: impl Team,
    kernels: Kernels,
    cache: CacheFormat,
    mut out: impl FnMut(&str),
) -> Result<(), Failure> {
    let model = Model::read(file)?;
    model.verify()?;
    let config = *model.config();
    let entries = part(&mut memory.entries, Tape::len(&config), "tape")?;
    let weights = Resident::new(model.tape(entries)?, file)?;

    let capacity = Capacity { context: LENGTH + 1, batch: 1, logits: 1, cache };
    let state = part(&mut memory.state, state_len(&config, capacity)?, "state")?;
    let state = State::new(&config, capacity, state)?;
    let mut engine = Engine::new(weights, state, team, kernels);

    let vocabulary = model.vocabulary()?.ok_or_else(|| Failure::new("the file has no vocabulary"))?;
    let index = part(&mut memory.index, vocabulary.index_len(), "vocabulary")?;
    let tokenizer = Tokenizer::from_gguf(&vocabulary, index)?;

    let greedy = Settings { temperature: 0.0, ..Settings::default() };
    let mut sampler = Sampler::new(greedy, 0)?;
    memory.tokens[0] = tokenizer.bos();
    let ends = [tokenizer.bos(), tokenizer.eos()];
    let mut story = Generation::new(&mut engine, &mut sampler, &mut memory.tokens, 1, ends)?;
    let (mut utf8, mut last) = (Utf8Stream::new(), tokenizer.bos());
    while let Some(token) = story.next()? {
        for bytes in tokenizer.decode(last, token) {
            utf8.push(bytes, &mut out);
        }
        last = token;
    }
    utf8.finish(&mut out);
    Ok(())
}

#[cfg(not(target_family = "wasm"))]
fn main() -> std::process::ExitCode {
    match program::run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.text());
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_family = "wasm"))]
mod program {
    use super::{CacheFormat, Failure, Kernels, Memory, tell};
    use llamita_kernels::Threads;
    use zerocopy::IntoBytes;

    /// Tells the story of every file.
    pub fn run() -> Result<(), Failure> {
        let (mut kernels, mut threads, mut cache) = (Kernels::detect(), 1, CacheFormat::F32);
        let (mut files, mut arguments) = (Vec::new(), std::env::args().skip(1));
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--scalar" => kernels = Kernels::SCALAR,
                "--threads" => threads = arguments.next().unwrap_or_default().parse()?,
                "--kv" if arguments.next().as_deref() == Some("q8") => cache = CacheFormat::Q8,
                option if option.starts_with("--") => {
                    return Err(Failure::new(format_args!(
                        "{option} is not understood: usage: story [--scalar] [--threads N] [--kv q8] FILE..."
                    )));
                }
                _ => files.push(argument),
            }
        }
        println!("{}", kernels.name());
        let mut memory = Box::new(Memory::EMPTY);
        for path in files {
            let bytes = std::fs::read(&path)?;
            // Aligned to its numbers.
            let mut file = vec![0_u64; bytes.len().div_ceil(8)];
            file.as_mut_bytes()[..bytes.len()].copy_from_slice(&bytes);
            println!("== {path}");
            let file = &file.as_bytes()[..bytes.len()];
            tell(file, &mut memory, Threads::new(threads)?, kernels, cache, |piece| print!("{piece}"))?;
            println!();
        }
        Ok(())
    }
}

#[cfg(target_family = "wasm")]
mod module {
    use core::fmt::Write;
    use core::panic::PanicInfo;
    use core::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

    use llamita::Solo;
    use zerocopy::IntoBytes;

    use super::{CacheFormat, Kernels, Memory, tell};

    /// Words of the largest file.
    const WORDS: usize = 1 << 17;

    // Atomics instead of pointers: nobody outside needs to know where anything lies, and nothing is unsafe.
    static FILE: [AtomicU32; WORDS] = [const { AtomicU32::new(0) }; WORDS];
    static TEXT: [AtomicU8; 4096] = [const { AtomicU8::new(0) }; 4096];
    static TEXT_LENGTH: AtomicUsize = AtomicUsize::new(0);

    /// What the module has to say; text that does not fit is dropped.
    struct Text;

    impl Write for Text {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            for byte in text.bytes() {
                let end = TEXT_LENGTH.load(Ordering::Relaxed);
                let Some(place) = TEXT.get(end) else { break };
                place.store(byte, Ordering::Relaxed);
                TEXT_LENGTH.store(end + 1, Ordering::Relaxed);
            }
            Ok(())
        }
    }

    /// Say what computes.
    #[unsafe(no_mangle)]
    extern "C" fn unit() {
        TEXT_LENGTH.store(0, Ordering::Relaxed);
        // Writing to the text cannot fail.
        let _ = Text.write_str(Kernels::detect().name());
    }

    /// Put four bytes of the file in their place; returns -1 where the file is too large.
    #[unsafe(no_mangle)]
    extern "C" fn put(index: usize, word: u32) -> i32 {
        let place = FILE.get(index);
        place.map_or(-1, |place| {
            place.store(word, Ordering::Relaxed);
            0
        })
    }

    /// Tell the story of the file, of so many bytes: 0, or -1 and the text says what went wrong.
    #[unsafe(no_mangle)]
    extern "C" fn story(bytes: usize, quantize_cache: bool) -> i32 {
        TEXT_LENGTH.store(0, Ordering::Relaxed);
        let mut file = [0_u32; WORDS];
        for (word, stored) in file.iter_mut().zip(&FILE) {
            *word = stored.load(Ordering::Relaxed);
        }
        let bytes = bytes.min(size_of_val(&file));
        let cache = if quantize_cache { CacheFormat::Q8 } else { CacheFormat::F32 };
        let mut memory = Memory::EMPTY;
        let say = |piece: &str| {
            let _ = Text.write_str(piece);
        };
        match tell(&file.as_bytes()[..bytes], &mut memory, Solo, Kernels::detect(), cache, say) {
            Ok(()) => 0,
            Err(failure) => {
                TEXT_LENGTH.store(0, Ordering::Relaxed);
                let _ = Text.write_str(failure.text());
                -1
            }
        }
    }

    /// A byte of the text, or -1 behind its end.
    #[unsafe(no_mangle)]
    extern "C" fn text_byte(index: usize) -> i32 {
        let byte = TEXT.get(index).filter(|_| index < TEXT_LENGTH.load(Ordering::Relaxed));
        byte.map_or(-1, |byte| i32::from(byte.load(Ordering::Relaxed)))
    }

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        let _ = write!(Text, ": {info}");
        core::arch::wasm32::unreachable()
    }
}
