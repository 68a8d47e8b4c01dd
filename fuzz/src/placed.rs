//! Weights in places beside resident ones.

use std::convert::Infallible;
use std::fmt;

use llamita::weights::{Entry, Tape, Weights};
use llamita::{CacheFormat, Capacity, Engine, Kernels, Model, Resident, Solo, State, state_len};
use llamita_storage::{
    Finished, Home, InMemory, Lent, MEMORIES, Placed, Portions, Reader, Sector, Source, Verify, norms_len,
    single_len,
};
use zerocopy::IntoBytes;

/// A file whose reads do what a script says: 0 is well, and so is all after its end.
struct Scripted<'f> {
    file: InMemory<'f, Vec<Sector>>,
    script: std::slice::Iter<'f, u8>,
    damages: u8,
}

#[derive(Debug)]
struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as the script says")
    }
}

impl std::error::Error for Failed {}

impl Source for Scripted<'_> {
    type Error = Failed;
    type Buffer = Vec<Sector>;

    fn len(&self) -> u64 {
        self.file.len()
    }

    fn start(&mut self, first: u64, count: usize, buffer: Vec<Sector>) {
        self.file.start(first, count, buffer);
    }

    fn finish(&mut self) -> Option<Finished<Vec<Sector>, Failed>> {
        let act = self.script.next().copied().unwrap_or(0);
        if act % 5 == 4 {
            return None;
        }
        let Finished { mut buffer, outcome } = self.file.finish()?;
        let len = outcome.unwrap_or_else(|never: Infallible| match never {});
        let outcome = match act % 5 {
            1 => Err(Failed),
            2 => Ok(len.saturating_sub(usize::from(act))),
            3 => {
                // Never twice the same, which would pass for the truth.
                self.damages = self.damages.wrapping_add(1);
                let index = usize::from(act) * 37 % len.max(1);
                buffer.as_mut_slice().as_mut_bytes()[index] ^= self.damages | 128;
                Ok(len)
            }
            _ => Ok(len),
        };
        Some(Finished { buffer, outcome })
    }
}

/// Runs a model from places, over reads that fail by a script, and from memory. Where both compute, they agree, but for
/// files without checksums whose reads were damaged.
pub fn compare(bytes: &[u8], pinned: [u8; 2], buffer: u8, buffers: u8, script: &[u8], always: bool) {
    let mut sectors = vec![Sector::ZERO; Sector::count(bytes.len() as u64)];
    sectors.as_mut_slice().as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
    let bytes = &sectors.as_bytes()[..bytes.len()];
    let Ok(model) = Model::read(bytes) else { return };
    let config = *model.config();
    let mut entries = vec![Entry::EMPTY; Tape::len(&config)];
    let Ok(tape) = model.tape(&mut entries) else { return };
    let Ok(resident) = Resident::new(tape, bytes) else { return };
    // Damage may have taken the checksums away.
    let (whole, sealed) = model.verify().map_or((false, true), |count| (true, count > 0));

    let memory = |bytes: usize| vec![Sector::ZERO; bytes.div_ceil(512)];
    let buffer = Portions::least_buffer(&tape) + 16 * usize::from(buffer);
    let source = Scripted { file: InMemory::new(bytes), script: script.iter(), damages: 0 };
    let buffers = (0..1 + buffers % 7).map(|_| memory(buffer));
    let reader = Reader::new(source, buffers, memory(single_len(&tape)));
    let mut arenas: [Vec<Sector>; MEMORIES] = Default::default();
    for (arena, size) in arenas.iter_mut().zip(pinned) {
        *arena = memory(64 * usize::from(size));
    }
    let mut norms = vec![0.0; norms_len(&config)];
    let lent = Lent { norms: &mut norms, pinned: arenas.each_mut().map(|arena| &mut arena[..]) };
    let verify = if always { Verify::Always } else { Verify::First };
    let placed = match Placed::load(tape, Home::Streamed(reader), lent, verify, |_, _| ()) {
        Ok(placed) => placed,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let damages = script.iter().any(|act| act % 5 == 3);
    let (expected, found) = (logits(resident), logits(placed));
    // Damage after the first pass is only seen where all is verified, and never without checksums.
    if let Some(Some(found)) = found.first().filter(|_| sealed || !damages) {
        assert!(!sealed || whole, "a damaged file was used");
        assert_eq!(Some(found), expected[0].as_ref());
    }
    if let Some(Some(found)) = found.get(1).filter(|_| !damages || sealed && always) {
        assert_eq!(Some(found), expected[1].as_ref());
    }
}

/// The bits of the logits of two passes, of those that succeed.
fn logits<W: Weights>(weights: W) -> [Option<Vec<u32>>; 2] {
    let config = *weights.config();
    let capacity = Capacity { context: 4, batch: 3, logits: 1, cache: CacheFormat::F32 };
    let mut memory = vec![f32::NAN; state_len(&config, capacity).unwrap()];
    let state = State::new(&config, capacity, &mut memory).unwrap();
    let mut engine = Engine::new(weights, state, Solo, Kernels::detect());
    let mut pass = |tokens: &[u32], position| {
        // Again after an error, as a user would.
        for _ in 0..2 {
            if let Ok(logits) = engine.forward(tokens, position, 1) {
                return Some(logits.iter().map(|logit| logit.to_bits()).collect());
            }
        }
        None
    };
    let first = pass(&[0, 1, 2], 0);
    let second = first.as_ref().and_then(|_| pass(&[1], 3));
    [first, second]
}
