//! How long a token takes where reading or computing is the limit.

use std::time::{Duration, Instant};

use llamita::weights::Pass;
use llamita::{CacheFormat, Capacity};
use llamita_storage::simulate::{Clock, Faults, Simulated, Throttled};
use llamita_storage::{
    Board, Costs, Cycles, FileSource, Home, InMemory, MEMORIES, Medium, Memory, Placed, Plan, PlanError,
    Request, Sector, Verify, plan, predict,
};

use crate::common::{File, Places, STREAMED, engine, placed, reader};

const CAPACITY: Capacity = Capacity { context: 40, batch: 12, logits: 1, cache: CacheFormat::F32 };

/// Cycles as those of a small core; `scale` makes it slower or faster. All are spread over the tape, so that reading can hide
/// them.
fn cycles(scale: f64) -> Cycles {
    let of_weights = [2.0, 3.0, 0.6, 0.8].map(|cycles| cycles * scale);
    Cycles { norm: 0.0, angle: 0.0, ..Cycles::new(of_weights, 2.0 * scale, 60.0 * scale) }
}

fn medium(rate: f64) -> Medium {
    Medium { rate, latency: 1e-4, best_read: 16 << 10, overlap: true }
}

const MEMORIES_OF_A_CHIP: [Memory; 2] = [
    Memory { size: 256 << 10, rate: 1e9, read_only: false, dma: true },
    Memory { size: 2 << 20, rate: 80e6, read_only: false, dma: true },
];

fn board(rate: f64, scale: f64, overlap: bool) -> Board<'static> {
    let storage = Some(Medium { overlap, ..medium(rate) });
    Board { clock: 240e6, cores: 2, cycles: cycles(scale), memories: &MEMORIES_OF_A_CHIP, storage }
}

fn request(file: &'static File, pin: bool) -> Request<'static> {
    let (tape, len) = (file.tape(), file.bytes().len() as u64);
    Request { tape, file: len, capacity: CAPACITY, other: 1000, buffers: 3, in_place: false, pin }
}

/// A simulated board under weights that are placed as planned.
type Streamed = Placed<'static, Throttled<'static, InMemory<'static, Vec<Sector>>>>;
type OnBoard = Simulated<'static, Streamed, fn(&Streamed) -> usize>;

fn on_board(file: &'static File, planned: &Plan, costs: Costs<'static>, clock: &'static Clock) -> OnBoard {
    let medium = costs.board.storage.unwrap();
    let source = Throttled::new(InMemory::new(file.bytes()), medium, Faults::default(), 1, clock);
    let [pinned @ .., _, _] = planned.pinning.room.map(|bytes| bytes as usize);
    let places = Places { pinned, buffer: planned.buffer, buffers: planned.buffers, verify: Verify::First };
    let weights = placed(file.tape(), Home::Streamed(reader(source, &file.tape(), places)), places).unwrap();
    Simulated::new(weights, file.tape(), costs, clock, |weights| weights.memory().unwrap_or(0))
}

/// Seconds of a token in the middle of a text, by the clock of the board.
fn measured(file: &'static File, planned: &Plan, costs: Costs<'static>, batch: usize) -> f64 {
    let clock: &'static Clock = Box::leak(Box::new(Clock::virtual_time()));
    let mut engine = engine(on_board(file, planned, costs, clock));
    let tokens: Vec<u32> = (0..batch as u32).map(|i| 3 + 17 * i).collect();
    engine.forward(&tokens, 10, 1).unwrap();
    let begun = clock.now();
    for _ in 0..4 {
        engine.forward(&tokens, 10, 1).unwrap();
    }
    (clock.now() - begun) as f64 / 4e9
}

fn models() -> Vec<(&'static str, &'static File)> {
    let file =
        |bits| -> &'static File { Box::leak(Box::new(File::new(&crate::common::shape_of_tiny(bits)))) };
    vec![("f32", file(None)), ("q8", file(Some(8))), ("q4", file(Some(4)))]
}

fn costs(board: Board<'static>, config: llamita::Config, planned: &Plan) -> Costs<'static> {
    Costs { board, config, cache: CacheFormat::F32, cache_memory: planned.cache_in }
}

/// Storage from slow to as fast as memory, cores slow and fast, formats: a token takes as long as the slower of reading
/// and computing, not as both, and the plan knew.
#[test]
fn a_token_takes_the_longer_of_reading_and_computing() {
    let mut told = Vec::new();
    for (name, file) in models() {
        for rate in [2e6, 8e6, 30e6, 120e6] {
            for scale in [0.3, 6.0] {
                let board = board(rate, scale, true);
                let planned = plan(&request(file, false), &board).unwrap();
                let costs = costs(board, *file.tape().config(), &planned);
                let pass = Pass { position: 10, batch: 1, logits: 1 };
                let time = predict(&planned, file.tape(), &costs, pass);
                let seconds = measured(file, &planned, costs, 1);
                let computing = time.total - time.parts[0];
                let longer = (planned.streamed as f64 / rate).max(computing);
                told.push(format!(
                    "{name} {rate} {scale}: {seconds:.5}, longer {longer:.5}, planned {:.5}",
                    time.total
                ));
                assert!((seconds / longer - 1.0).abs() < 0.1, "{told:#?}");
                assert!((time.total / seconds - 1.0).abs() < 0.05, "{told:#?}");
            }
        }
    }
    println!("{told:#?}");
}

/// The same where some is pinned, in batches, and where nothing overlaps.
#[test]
fn plans_come_true() {
    for (name, file) in models() {
        for rate in [2e6, 20e6] {
            for scale in [0.3, 3.0] {
                for batch in [1, 8] {
                    for overlap in [true, false] {
                        // Room for half of the weights, in two memories.
                        let half = file.bytes().len() as u64 / 4;
                        let small = [
                            Memory { size: half + (130 << 10), ..MEMORIES_OF_A_CHIP[0] },
                            Memory { size: half, ..MEMORIES_OF_A_CHIP[1] },
                        ];
                        let memories: &'static [Memory] = Box::leak(Box::new(small));
                        let board = Board { memories, ..board(rate, scale, overlap) };
                        let planned = plan(&request(file, true), &board).unwrap();
                        assert!(planned.pinned[1] > 20_000, "{planned:?}");
                        assert!(planned.streamed > planned.pinning.total / 4, "{planned:?}");
                        let costs = costs(board, *file.tape().config(), &planned);
                        let pass = Pass { position: 10, batch, logits: 1 };
                        let time = predict(&planned, file.tape(), &costs, pass);
                        let seconds = measured(file, &planned, costs, batch);
                        let ratio = time.total / seconds;
                        assert!(
                            (ratio - 1.0).abs() < 0.05,
                            "{name} {rate} {scale} {batch} {overlap}: {ratio} {planned:?} {time:?}"
                        );
                    }
                }
            }
        }
    }
}

/// A whole prompt takes little more than a token where the storage is the limit.
#[test]
fn a_prompt_is_read_once() {
    let file = models()[0].1;
    let board = board(4e6, 0.3, true);
    let planned = plan(&request(file, false), &board).unwrap();
    let costs = costs(board, *file.tape().config(), &planned);
    let ratio = measured(file, &planned, costs, 12) / measured(file, &planned, costs, 1);
    assert!(ratio < 1.15, "{ratio}");
}

/// The time of the world.
fn nanoseconds() -> u64 {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64
}

/// The same by the clock of the world: a file that is read by its own thread at the pace of a medium, and weights that
/// take time.
#[test]
fn reading_overlaps_computing_in_real_time() {
    let path = std::env::temp_dir().join(format!("llamita-pace-{}.gguf", std::process::id()));
    std::fs::write(&path, File::nano().bytes()).unwrap();
    let file: &'static File = Box::leak(Box::new(File::nano()));
    let mut ratios = Vec::new();
    for (rate, scale) in [(10e6, 64.0), (5e6, 32.0)] {
        let board = board(rate, scale, true);
        let planned = plan(&request(file, false), &board).unwrap();
        let costs = costs(board, *file.tape().config(), &planned);
        let pass = Pass { position: 10, batch: 1, logits: 1 };
        let longer = {
            let time = predict(&planned, file.tape(), &costs, pass);
            (planned.streamed as f64 / rate).max(time.total - time.parts[0])
        };
        let clock: &'static Clock = Box::leak(Box::new(Clock::real()));
        let source = FileSource::open(&path, Duration::from_secs(5)).unwrap();
        let source = Throttled::new(source, board.storage.unwrap(), Faults::default(), 1, clock);
        let places = Places { buffer: planned.buffer, buffers: planned.buffers, ..STREAMED };
        let home = Home::Streamed(reader(source, &file.tape(), places).with_clock(nanoseconds));
        let weights = placed(file.tape(), home, places).unwrap();
        let mut engine = engine(Simulated::new(weights, file.tape(), costs, clock, |_| 0));
        engine.forward(&[3], 10, 1).unwrap();
        // A busy machine takes the processor away: the quickest of some tokens is what there is to see.
        let mut best = f64::INFINITY;
        for _ in 0..60 {
            let begun = Instant::now();
            engine.forward(&[3], 10, 1).unwrap();
            best = best.min(begun.elapsed().as_secs_f64() / longer);
            if best < 1.15 {
                break;
            }
        }
        let serial = {
            let time = predict(&planned, file.tape(), &costs, pass);
            (planned.streamed as f64 / rate + time.total - time.parts[0]) / longer
        };
        ratios.push((best, serial));
    }
    std::fs::remove_file(&path).unwrap();
    println!("{ratios:?}");
    // One after the other would take half as long again.
    for (best, serial) in ratios {
        assert!(serial > 1.45 && (0.9..1.35).contains(&best), "{best}, one after the other {serial}");
    }
}

#[test]
fn what_does_not_fit_is_said_in_bytes() {
    let file: &'static File = Box::leak(Box::new(File::nano()));
    let with = |sizes: &[u64]| {
        let memories: Vec<_> = sizes.iter().map(|&size| Memory { size, ..MEMORIES_OF_A_CHIP[0] }).collect();
        let board = Board { memories: Vec::leak(memories), ..board(1e6, 1.0, true) };
        plan(&request(file, true), &board)
    };
    let whole = with(&[4 << 20]).unwrap();
    assert_eq!(whole.streamed, 0);
    // To the byte what is needed at least, in whole sectors.
    let mut least = 4 << 20;
    while with(&[least]).is_ok() {
        least -= 512;
    }
    let error = with(&[least]).unwrap_err();
    let PlanError::Memory(missing, _) = error else { panic!("{error}") };
    assert!((1..=512).contains(&missing), "{error}");
    let PlanError::Memory(missing, _) = with(&[1024]).unwrap_err() else { panic!("{error}") };
    assert!((least - 1024..least + 1024).contains(&missing), "{missing} of {least}");
    let tight = with(&[least + 512]).unwrap();
    assert!(tight.total() <= least + 512 && tight.pinned == [0; MEMORIES], "{tight:?}");
    assert!(with(&[]).is_err() && with(&[1 << 20; 5]).is_err());
    // As the memory grows less is streamed, and no memory is used beyond its size.
    let mut before = u64::MAX;
    for size in (least + 512..whole.total() + 4096).step_by(4096) {
        let planned = with(&[size]).unwrap();
        assert!(
            planned.total() <= size && planned.streamed <= before.saturating_add(planned.buffer as u64 * 2)
        );
        before = before.min(planned.streamed);
    }
    let no_storage = Board { storage: None, ..board(1e6, 1.0, true) };
    let error = plan(&request(file, true), &no_storage).unwrap_err();
    assert!(error.to_string().contains("no storage to read it from"), "{error}");
}

/// Flash that is read in place is copied to what is faster, and nowhere else.
#[test]
fn a_model_in_flash_is_used_in_place() {
    let file: &'static File = Box::leak(Box::new(File::nano()));
    let flash = Memory { size: 8 << 20, rate: 30e6, read_only: true, dma: true };
    let slow = Memory { size: 8 << 20, rate: 20e6, read_only: false, dma: true };
    let memories = [MEMORIES_OF_A_CHIP[0], slow, flash];
    let board = Board { memories: &memories, storage: None, ..board(1e6, 1.0, true) };
    let planned = plan(&Request { in_place: true, ..request(file, true) }, &board).unwrap();
    assert_eq!((planned.mapped, planned.buffers, planned.pinned[1]), (Some(2), 0, 0));
    assert!(planned.pinned[0] > 200_000 && planned.streamed > 20_000, "{planned:?}");
    // It leaves the fast memory to weights, which are all read for each token.
    assert_eq!((planned.state_in, planned.cache_in), (0, 1));
    let costs = Costs {
        board,
        config: *file.tape().config(),
        cache: CacheFormat::F32,
        cache_memory: planned.cache_in,
    };
    let time = predict(&planned, file.tape(), &costs, Pass { position: 10, batch: 1, logits: 1 });
    assert_eq!((time.parts[0], time.storage), (0.0, 0.0));
    assert!(time.total >= planned.streamed as f64 / flash.rate);
}
