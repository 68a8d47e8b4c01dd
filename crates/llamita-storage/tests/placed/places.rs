//! Every way to place a model.

use llamita::Tape;
use llamita::weights::{Matrix, Tensor};
use llamita_storage::{Home, InMemory, Pinning, Place, Portion, Portions, Sector, Verify};
use proptest::prelude::*;

use crate::common::{File, Places, STREAMED, engine, expected, placed, reader, story};

type Memory = InMemory<'static, Vec<Sector>>;

fn leaked(file: File) -> &'static File {
    Box::leak(Box::new(file))
}

#[test]
fn streamed_pinned_and_mixed_are_as_resident() {
    let file = leaked(File::nano());
    let told = expected(file, 4);
    let all = Portions::new(file.tape(), 1 << 20).total() as usize;
    for pinned in
        [[0, 0], [20_000, 0], [0, 50_000], [50_000, 100_000], [100_000, 50_000], [2 * all, 0], [all / 2, all]]
    {
        for buffer in [0, 8 << 10, 33_000, 1 << 20] {
            for (buffers, verify) in [(1, Verify::First), (2, Verify::Always), (7, Verify::First)] {
                let places = Places { pinned, buffer, buffers, verify };
                let source = Memory::new(file.bytes());
                let weights =
                    placed(file.tape(), Home::Streamed(reader(source, &file.tape(), places)), places)
                        .unwrap();
                assert!(weights.pinned_bytes() <= (pinned[0] + pinned[1]) as u64 + 1024);
                let mut engine = engine(weights);
                assert!(story(&mut engine, 4).unwrap() == told, "{places:?}");
            }
        }
        let places = Places { pinned, ..STREAMED };
        let tape = file.tape();
        for portion in [Portions::mapped_buffer(&tape), Portions::whole(&tape)] {
            let weights = placed::<Memory>(tape, Home::Mapped(file.bytes(), portion), places).unwrap();
            assert!(story(&mut engine(weights), 4).unwrap() == told, "mapped, {portion} {pinned:?}");
        }
    }
}

#[test]
fn checkpoints_of_llama2c_are_streamed_too() {
    // Their tensors are not in the order of the tape.
    let config = llamita::Config {
        dim: 48,
        hidden_dim: 100,
        n_layers: 3,
        n_heads: 4,
        n_kv_heads: 2,
        head_size: 12,
        vocab_size: 1001,
        seq_len: 64,
        norm_eps: 1e-5,
        rope_theta: 10000.0,
        shared_classifier: false,
    };
    let mut bytes = vec![0; llamita::format::llama2c::file_len(&config) as usize];
    let mut random = 1_u32;
    for word in bytes.as_chunks_mut::<4>().0 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *word = (random as f32 / u32::MAX as f32 - 0.5).to_le_bytes();
    }
    let header = llamita::format::llama2c::header(&config).unwrap();
    bytes[..header.len()].copy_from_slice(&header);
    let file = leaked(File::new(&bytes));
    let told = expected(file, 4);
    for pinned in [[0, 0], [100_000, 100_000]] {
        let places = Places { pinned, ..STREAMED };
        let source = Memory::new(file.bytes());
        let weights =
            placed(file.tape(), Home::Streamed(reader(source, &file.tape(), places)), places).unwrap();
        assert!(story(&mut engine(weights), 4).unwrap() == told, "{pinned:?}");
    }
}

#[test]
fn a_pass_reads_what_is_not_pinned_once() {
    let file = leaked(File::nano());
    let places = Places { pinned: [100_000, 0], ..STREAMED };
    let source = Memory::new(file.bytes());
    let weights = placed(file.tape(), Home::Streamed(reader(source, &file.tape(), places)), places).unwrap();
    let streamed = weights.streamed_bytes();
    let mut engine = engine(weights);
    story(&mut engine, 1).unwrap();
    let before = engine.weights().stats();
    for position in 20..30 {
        engine.forward(&[5], position, 1).unwrap();
    }
    let after = engine.weights().stats();
    // Sectors at the ends of portions, and a row of the embedding for each token.
    let read = (after.bytes - before.bytes) as f64 / 10.0;
    assert!((1.0..1.06).contains(&(read / streamed as f64)), "{read} of {streamed}");
    // A portion and a half is behind what is read for the next token.
    assert_eq!(after.retries, 0);
}

/// In memory nothing is gained by cutting a product, or by pinning half of it.
#[test]
fn products_of_a_file_in_memory_are_lent_in_one_piece() {
    let file = File::nano();
    let (tape, config) = (file.tape(), *file.tape().config());
    let portions = Portions::mapped(tape, Portions::mapped_buffer(&tape));
    let mut at = portions.start();
    let all: Vec<_> = std::iter::from_fn(|| {
        let portion = portions.portion(at)?;
        at = portion.end;
        Some(portion)
    })
    .collect();
    assert!(all.len() > 2 * config.n_layers, "{all:?}");
    for layer in 0..config.n_layers {
        let products = [
            &[Matrix::Wq(layer), Matrix::Wk(layer), Matrix::Wv(layer)][..],
            &[Matrix::Wo(layer)],
            &[Matrix::W1(layer), Matrix::W3(layer)],
            &[Matrix::W2(layer)],
        ];
        for product in products {
            let whole = |portion: &Portion| {
                product.iter().all(|&matrix| {
                    let rows = Tape::shape(&config, Tensor::Matrix(matrix)).0;
                    portion.rows(Tape::index(&config, Tensor::Matrix(matrix)), rows) == (0..rows)
                })
            };
            assert!(all.iter().any(whole), "{product:?} in {all:?}");
        }
    }
    // The classifier is cut, and by no more than the others are.
    assert!(all.iter().all(|portion| portion.len < 24 << 10), "{all:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn portions_cover_the_tape(buffer in 1_usize..300_000, rooms: [u32; 3]) {
        let file = File::nano();
        let tape = file.tape();
        let buffer = buffer.max(Portions::least_buffer(&tape));
        let portions = Portions::new(tape, buffer);
        let room = [rooms[0] % 200_000, rooms[1] % 200_000, rooms[2] % 100_000, 0].map(u64::from);
        let pinning = Pinning { total: portions.total(), room };
        let mut cursor = llamita_storage::Cursor::start(&portions);
        let (mut at, mut pinned, mut streamed, mut longest) = (portions.start(), 0, 0, 0);
        let mut places: Vec<(usize, usize, usize)> = Vec::new();
        while let Some((portion, place)) = cursor.step(&portions, &pinning) {
            prop_assert_eq!(portion.first, at);
            prop_assert!(portion.end > portion.first && portion.len > 0);
            prop_assert!((portion.start % 512) as usize + portion.len <= buffer.next_multiple_of(512));
            at = portion.end;
            longest = longest.max(portion.len as u64);
            match place {
                Place::Pinned(memory, offset) => {
                    prop_assert!((offset + portion.len) as u64 <= room[memory]);
                    prop_assert_eq!(offset % 64, (portion.start % 64) as usize);
                    places.push((memory, offset, offset + portion.len));
                    pinned += portion.len as u64;
                }
                Place::Home => streamed += portion.len as u64,
            }
        }
        prop_assert_eq!(at, portions.end());
        prop_assert_eq!(pinned + streamed, pinning.total);
        places.sort_unstable();
        prop_assert!(places.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1));
        // As much is pinned as fits, but for one portion and the ends of memories.
        let most = room.iter().sum::<u64>().min(pinning.total);
        prop_assert!(pinned + 4 * longest + 64 * places.len() as u64 >= most, "{} of {}", pinned, most);
    }
}
