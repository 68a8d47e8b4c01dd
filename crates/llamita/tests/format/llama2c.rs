//! llama2.c checkpoints.

use llamita::Resident;
use llamita::config::Config;
use llamita::format::{Kind, Model, llama2c};
use llamita::weights::{Blocks, Entry, Format, Tape};

use crate::builder::{CONFIG, SHARED, tensors, v0, v1, v2};
use crate::{load, refusal};

#[test]
fn version_0_is_written_as_it_is_read() {
    for config in [CONFIG, SHARED] {
        let file = v0(&config);
        assert_eq!(llama2c::header(&config).unwrap(), file[..28]);
        assert_eq!(llama2c::file_len(&config), file.len() as u64);
        let (_, entries, _) = load(&file).unwrap();
        let mut count = 0;
        llama2c::places(&config, |tensor, offset| {
            assert_eq!(entries[Tape::index(&config, tensor)].offset, offset);
            count += 1;
        });
        assert_eq!(count, tensors(&config).len());
    }
    let refused = |config| llama2c::header(&config).unwrap_err().to_string();
    assert_eq!(
        refused(Config { head_size: 4, ..CONFIG }),
        "a llama2.c file of version 0 cannot express this head_size: write GGUF"
    );
    assert_eq!(
        refused(Config { norm_eps: 1e-6, ..CONFIG }),
        "a llama2.c file of version 0 cannot express this norm_eps: write GGUF"
    );
    assert_eq!(
        refused(Config { rope_theta: 5e5, ..CONFIG }),
        "a llama2.c file of version 0 cannot express this rope_theta: write GGUF"
    );
    assert_eq!(
        refused(Config { n_layers: 0, ..CONFIG }),
        "n_layers is 0, expected at least 1: the file is damaged, or the model is not one that llamita runs"
    );
}

#[test]
fn sizes() {
    assert_eq!(
        refusal(&v0(&CONFIG)[..1000]),
        "the file is 1000 bytes, its header promises 3252: it is truncated, copy or download it again \
         (or it is no llama2.c checkpoint: version 0 has no mark to tell)"
    );
    let mut long = v0(&CONFIG);
    long.push(0);
    assert_eq!(
        refusal(&long),
        "the file is 3253 bytes, its header promises 3252: it is damaged or something was appended, \
         copy or download it again (or it is no llama2.c checkpoint: version 0 has no mark to tell)"
    );
    assert_eq!(
        refusal(&v1(&CONFIG)[..1000]),
        "the file is 1000 bytes, its header promises 3424: it is truncated, copy or download it again"
    );
    assert_eq!(
        refusal(&v1(&CONFIG)[..100]),
        "the header at byte 0 takes 256 bytes, the file has 100 more: \
         it is truncated or damaged, copy or download it again"
    );
    assert_eq!(
        refusal(&v0(&CONFIG)[..27]),
        "the header at byte 0 takes 28 bytes, the file has 27 more: \
         it is truncated or damaged, copy or download it again"
    );
}

/// A header with one of its seven sizes changed.
fn resized(mut file: Vec<u8>, at: usize, size: i32) -> Vec<u8> {
    file[at..at + 4].copy_from_slice(&size.to_le_bytes());
    file
}

#[test]
fn shapes() {
    for (field, size, text) in [
        (0, 0, "dim is 0, expected at least 1"),
        (0, -8, "dim is 4294967288, expected at most 16777216"),
        (0, 9, "a width of 9 over 4 heads gives no even head size"),
        (0, 12, "a width of 12 over 4 heads gives no even head size"),
        (1, i32::MIN, "hidden_dim is 2147483648, expected at most 16777216"),
        (2, 1025, "n_layers is 1025, expected at most 1024"),
        (3, 0, "n_heads is 0, expected at least 1"),
        (4, 0, "n_kv_heads is 0, expected at least 1"),
        (4, 3, "3 key/value heads do not divide 4 heads"),
        (5, 0, "vocab_size is 0, expected at least 1"),
        (5, i32::MIN, "vocab_size is 2147483648, expected at most 16777216"),
        (6, -1, "seq_len is 4294967295, expected at most 16777216"),
    ] {
        assert_eq!(
            refusal(&resized(v0(&CONFIG), 4 * field, size)),
            format!(
                "not a model file that llamita reads: it is neither GGUF nor a llama2.c checkpoint \
                 (read as one, {text})"
            )
        );
        assert_eq!(
            refusal(&resized(v1(&CONFIG), 8 + 4 * field, size)),
            format!("{text}: the file is damaged, or the model is not one that llamita runs")
        );
    }
    // The largest sizes do not overflow.
    let mut largest = v1(&CONFIG);
    for (i, size) in [1 << 24, 1 << 24, 1 << 10, 1 << 23, 1 << 23, 1 << 24, 1 << 24].into_iter().enumerate() {
        largest = resized(largest, 8 + 4 * i, size);
    }
    assert!(refusal(&largest).contains("its header promises 8072702469567676672"));
}

#[test]
fn versions() {
    let llama2c = |version| refusal(&resized(v1(&CONFIG), 4, version));
    assert_eq!(
        llama2c(3),
        "llama2.c version 3, supported are 0, 1 and 2: export the model again with `export.py --version 1`"
    );
    assert_eq!(
        llama2c(2),
        "the header says groups of 0, which do not fill tensor token_embd.weight: \
         the file is damaged, copy or download it again"
    );
}

#[test]
fn version_2_has_integers_and_scales() {
    for (config, group) in [(CONFIG, 8), (SHARED, 4), (CONFIG, 1)] {
        let bytes = v2(&config, group);
        let (found, entries, vocabulary) = load(&bytes).unwrap();
        assert_eq!((found, Model::read(&bytes).unwrap().kind()), (config, Kind::Llama2cV2));
        assert!(vocabulary.is_none());
        for (name, rows, columns, index) in tensors(&config) {
            let Entry { offset, format, .. } = entries[index];
            let offset = offset as usize;
            let scales = offset + rows * columns;
            if name.contains("norm") {
                assert_eq!(
                    (format, &bytes[offset..][..4]),
                    (Format::F32, &(index as f32 + 1.0).to_le_bytes()[..])
                );
                continue;
            }
            assert_eq!(format, Format::Blocks(Blocks::Llama2c { group: group as u32 }));
            assert!(bytes[offset..scales].iter().all(|&value| value == index as u8 + 1), "{name}");
            let scales = &bytes[scales..][..4 * (rows * columns / group)];
            assert!(
                scales.as_chunks().0.iter().all(|&scale| f32::from_le_bytes(scale) == index as f32),
                "{name}"
            );
        }
        assert_eq!(entries.first() == entries.last(), config.shared_classifier);
        for len in 0..bytes.len() {
            assert!(load(&bytes[..len]).is_err(), "{len}");
        }
    }
    // The first tensor that is not filled is named: 8 columns of 5 rows.
    assert!(
        refusal(&resized(v2(&CONFIG, 8), 37, 16))
            .contains("groups of 16, which do not fill tensor token_embd")
    );
    assert!(refusal(&resized(v2(&CONFIG, 8), 37, -1)).contains("groups of 4294967295"));
    let model = v2(&CONFIG, 8);
    let mut entries = vec![Entry::EMPTY; Tape::len(&CONFIG)];
    let tape = Model::read(&model).unwrap().tape(&mut entries).unwrap();
    let error = Resident::new(tape, &model).unwrap_err().to_string();
    assert!(error.contains("int8, groups of 8") && error.contains("llamita convert"), "{error}");
}
