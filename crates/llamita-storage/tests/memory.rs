//! A plan's figure for memory is what is used, to the byte but for what the allocator's callers round up.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use llamita::weights::{Entry, Tape};
use llamita::{
    CacheFormat, Capacity, Engine, Generation, Kernels, Model, Sampler, Settings, Solo, State, Tokenizer,
    state_len,
};
use llamita_storage::{
    Board, Cycles, Home, InMemory, Lent, MEMORIES, Medium, Memory, Placed, Reader, Request, Sector, Verify,
    plan,
};

/// Counts what is allocated at once.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: All is left to the system's allocator, whose results and whose demands are passed on as they are.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: The caller's promises are those that the system asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: As above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CYCLES: Cycles = Cycles::new([2.0, 3.0, 0.6, 0.8], 2.0, 60.0);
const CARD: Medium = Medium { rate: 8e6, latency: 5e-4, best_read: 16 << 10, overlap: true };

/// Tells a story in as much memory as was planned; returns the plan's figure and what was used.
fn tell(file: &[u8], memories: &[Memory], capacity: Capacity) -> (u64, u64) {
    let start = NOW.load(Ordering::Relaxed);
    PEAK.store(start, Ordering::Relaxed);

    let header_len = Model::read(file).unwrap().header_len() as usize;
    let header = file[..header_len].to_vec();
    let model = Model::read_header(&header, file.len() as u64).unwrap();
    let config = *model.config();
    let mut entries = vec![Entry::EMPTY; Tape::len(&config)];
    let tape = model.tape(&mut entries).unwrap();
    let vocabulary = model.vocabulary().unwrap().unwrap();
    let mut index = vec![0; vocabulary.index_len()];
    let tokenizer = Tokenizer::from_gguf(&vocabulary, &mut index).unwrap();
    let mut tokens = vec![tokenizer.bos(); capacity.context];

    let other = header.len()
        + 4 * (vocabulary.index_len() + capacity.context)
        + Tape::len(&config) * size_of::<Entry>();
    let board = Board { clock: 1e8, cores: 1, cycles: CYCLES, memories, storage: Some(CARD) };
    let request = Request {
        tape,
        file: file.len() as u64,
        capacity,
        other: other as u64,
        buffers: 3,
        in_place: false,
        pin: true,
    };
    let planned = plan(&request, &board).unwrap();

    let sectors = |bytes: usize| vec![Sector::ZERO; bytes / size_of::<Sector>()];
    let reader = Reader::new(
        InMemory::new(file),
        (0..planned.buffers).map(|_| sectors(planned.buffer)),
        sectors(planned.single),
    );
    let mut pinned: [Vec<Sector>; MEMORIES] = planned.pinning.room.map(|room| sectors(room as usize));
    let mut norms = vec![0.0; planned.norms as usize / 4];
    let lent = Lent { norms: &mut norms, pinned: pinned.each_mut().map(|pinned| &mut pinned[..]) };
    let weights = Placed::load(tape, Home::Streamed(reader), lent, Verify::Always, |_, _| ()).unwrap();
    let mut memory = vec![0.0; state_len(&config, capacity).unwrap()];
    let state = State::new(&config, capacity, &mut memory).unwrap();
    let mut engine = Engine::new(weights, state, Solo, Kernels::detect());
    let mut sampler = Sampler::new(Settings::default(), 1).unwrap();
    let ends = [tokenizer.bos(), tokenizer.eos()];
    let mut story = Generation::new(&mut engine, &mut sampler, &mut tokens, 1, ends).unwrap();
    while story.next().unwrap().is_some() {}
    assert!(story.tokens().len() > 10);
    (planned.total(), (PEAK.load(Ordering::Relaxed) - start) as u64)
}

#[test]
fn no_more_memory_is_used_than_planned() {
    let (nano, tiny) =
        (include_bytes!("../../../models/nano.gguf"), include_bytes!("../../../models/tiny.gguf"));
    for (file, sizes) in [
        (&nano[..], &[180 << 10][..]),
        (&nano[..], &[150 << 10, 100 << 10]),
        (&nano[..], &[1 << 20]),
        (&tiny[..], &[300 << 10]),
        (&tiny[..], &[300 << 10, 400 << 10]),
        (&tiny[..], &[8 << 20]),
    ] {
        let memories: Vec<_> =
            sizes.iter().map(|&size| Memory { size, rate: 1e9, read_only: false, dma: true }).collect();
        let capacity = Capacity { context: 64, batch: 2, logits: 1, cache: CacheFormat::Q8 };
        let (planned, used) = tell(file, &memories, capacity);
        assert!(planned <= sizes.iter().sum(), "{sizes:?}: {planned}");
        let ratio = used as f64 / planned as f64;
        println!("{sizes:?}: {planned} planned, {used} used, {ratio:.4}");
        assert!((0.99..=1.01).contains(&ratio), "{sizes:?}: {planned} planned, {used} used");
    }
}
