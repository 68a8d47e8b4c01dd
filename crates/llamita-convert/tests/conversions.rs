//! Whole models from one form to another and back.

use std::fs;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use llamita::format::{TensorName, llama2c};
use llamita::weights::{Blocks, Entry, Format, Matrix, Tensor};
use llamita::{Config, Model, Resident, Tape};
use llamita_convert::source::{Checkpoint, Folder};
use llamita_convert::vocabulary::{from_llama2c_bin, to_llama2c_bin};
use llamita_convert::{
    Conversion, GgufFile, Group, Integers, Plan, Precision, Rounding, Source, Vocabulary, hugging_face,
};
use llamita_kernels::quantized::Quant;

#[path = "../../llamita/tests/format/builder.rs"]
mod builder;
#[path = "../../llamita/tests/common/data.rs"]
mod data;

/// A shape whose rows are multiples of 32 in some tensors and not in others.
const CONFIG: Config = Config {
    dim: 64,
    hidden_dim: 100,
    n_layers: 2,
    n_heads: 4,
    n_kv_heads: 2,
    head_size: 16,
    vocab_size: 270,
    seq_len: 32,
    norm_eps: 1e-5,
    rope_theta: 10000.0,
    shared_classifier: false,
};

const F32: Precision = Precision::F32;
const Q8: Precision = Precision::Quantized(Quant::Q8);
const Q4: Precision = Precision::Quantized(Quant::Q4);

/// A checkpoint of version 0 with random weights.
fn checkpoint(config: &Config) -> Vec<u8> {
    let mut random = 0x853c_49e6_u32;
    let mut number = || {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        (random >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let mut bytes = llama2c::header(config).unwrap().to_vec();
    bytes.resize(llama2c::file_len(config) as usize, 0);
    llama2c::places(config, |tensor, place| {
        let (rows, columns) = Tape::shape(config, tensor);
        for word in bytes[place as usize..].as_chunks_mut::<4>().0.iter_mut().take(rows * columns) {
            *word = number().to_le_bytes();
        }
    });
    bytes
}

fn open(bytes: &[u8]) -> Checkpoint<Cursor<&[u8]>> {
    Checkpoint::new(bytes, Cursor::new(bytes)).unwrap()
}

fn vocabulary(size: usize) -> Vocabulary {
    let mut bytes = 6_i32.to_le_bytes().to_vec();
    let special = ["<unk>", "\n<s>\n", "\n</s>\n"].map(str::to_owned);
    let pieces = special.into_iter().chain((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let letters = ('a'..).map(|letter| format!(" {letter}"));
    for (i, piece) in pieces.chain(letters).take(size).enumerate() {
        bytes.extend((-(i as f32)).to_le_bytes());
        bytes.extend((piece.len() as i32).to_le_bytes());
        bytes.extend(piece.bytes());
    }
    from_llama2c_bin(&bytes).unwrap()
}

/// Converts in memory, and reports the weights to have been written as many as there are.
fn written(
    source: &mut dyn Source,
    len: u64,
    write: impl FnOnce(&mut Conversion<'_>, &mut Cursor<&mut [u8]>),
) -> Vec<u8> {
    // What was there before must not matter.
    let mut bytes = vec![0xaa; len as usize];
    let config = *source.config();
    let mut weights = 0;
    let mut conversion =
        Conversion { source, quantizer: &mut Rounding, progress: &mut |more| weights += more };
    write(&mut conversion, &mut Cursor::new(&mut bytes[..]));
    let shared = |tensor| config.shared_classifier && tensor == Tensor::Matrix(Matrix::Classifier);
    let tensors = Tape::tensors(&config).filter(|&tensor| !shared(tensor));
    let shapes = tensors.map(|tensor| Tape::shape(&config, tensor));
    assert_eq!(weights, shapes.map(|(rows, columns)| (rows * columns) as u64).sum::<u64>());
    bytes
}

fn gguf(source: &mut dyn Source, file: &GgufFile) -> Vec<u8> {
    written(source, file.len(), |conversion, out| file.write(conversion, out).unwrap())
}

fn device(source: &mut dyn Source, body: Precision, head: Precision, group: Group) -> Vec<u8> {
    let plan = Plan::native(source.config(), body, head, group).unwrap();
    let file = GgufFile::device(source, &plan);
    gguf(source, &file)
}

fn ordinary(source: &mut dyn Source, body: Precision, head: Precision) -> Vec<u8> {
    let plan = Plan::ordinary(source.config(), body, head).unwrap();
    let file = GgufFile::ordinary(source, &plan);
    gguf(source, &file)
}

fn repacked(source: &mut dyn Source) -> Vec<u8> {
    let plan = Plan::nearest(source).unwrap();
    let file = GgufFile::device(source, &plan);
    gguf(source, &file)
}

fn version_0(source: &mut dyn Source) -> Vec<u8> {
    let len = llama2c::file_len(source.config());
    written(source, len, |conversion, out| llamita_convert::llama2c::write(conversion, out).unwrap())
}

/// All of a tensor, read in steps that are no multiple of anything.
fn numbers(source: &mut dyn Source, tensor: Tensor) -> Vec<f32> {
    let (rows, columns) = Tape::shape(source.config(), tensor);
    let mut numbers = vec![f32::NAN; rows * columns];
    for (chunk, out) in numbers.chunks_mut(13 * columns).enumerate() {
        source.read(tensor, 13 * chunk, out).unwrap();
    }
    numbers
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

#[track_caller]
fn assert_same(a: &mut dyn Source, b: &mut dyn Source) {
    assert_eq!(a.config(), b.config());
    for tensor in Tape::tensors(&a.config().clone()) {
        let (a, b) = (numbers(a, tensor), numbers(b, tensor));
        assert!(bits(&a) == bits(&b), "{}", TensorName(tensor));
    }
}

/// The root of the mean square of the difference to the source, over that of the source.
fn relative_error(source: &mut dyn Source, other: &mut dyn Source, tensor: Tensor) -> f64 {
    let (a, b) = (numbers(source, tensor), numbers(other, tensor));
    let square = |number: f32| f64::from(number) * f64::from(number);
    let error: f64 = a.iter().zip(&b).map(|(&a, &b)| square(a - b)).sum();
    (error / a.iter().map(|&a| square(a)).sum::<f64>()).sqrt()
}

/// Whether the engine uses the file in place, with all checksums right.
#[track_caller]
fn assert_runs(bytes: &[u8]) {
    // The engine wants memory that is aligned.
    let mut memory = vec![0_u64; bytes.len().div_ceil(8) + 8];
    let start = memory.as_ptr().align_offset(64);
    let memory: &mut [u8] = zerocopy::IntoBytes::as_mut_bytes(&mut memory[start..]);
    memory[..bytes.len()].copy_from_slice(bytes);
    let memory = &memory[..bytes.len()];
    let model = Model::read(memory).unwrap();
    let mut entries = vec![Entry::EMPTY; Tape::len(model.config())];
    let tape = model.tape(&mut entries).unwrap();
    Resident::new(tape, memory).unwrap();
    assert!(model.verify().unwrap() > 0);
}

#[test]
fn floats_survive_every_way() {
    for config in [CONFIG, Config { shared_classifier: true, ..CONFIG }] {
        let original = checkpoint(&config);
        let mut source = open(&original);
        source.set_vocabulary(vocabulary(config.vocab_size));
        let device = device(&mut source, F32, F32, Group::Row);
        assert_runs(&device);
        let ordinary = ordinary(&mut source, F32, F32);
        for gguf in [device, ordinary] {
            let mut read = open(&gguf);
            assert_eq!(read.vocabulary(), source.vocabulary());
            assert_same(&mut source, &mut read);
            assert!(version_0(&mut read) == original);
        }
    }
}

#[test]
fn quantized_files_run_and_are_near() {
    for config in [CONFIG, Config { shared_classifier: true, ..CONFIG }] {
        let original = checkpoint(&config);
        let mut source = open(&original);
        for (body, head, group, body_error, head_error) in [
            (Q8, Q8, Group::Columns(32), 0.006, 0.006),
            (Q4, Q8, Group::Columns(64), 0.11, 0.006),
            (Q4, F32, Group::Row, 0.13, 0.0),
            (F32, Q4, Group::Columns(32), 0.0, 0.1),
        ] {
            let bytes = device(&mut source, body, head, group);
            assert_runs(&bytes);
            let mut read = open(&bytes);
            for tensor in Tape::tensors(&config) {
                let limit = match tensor {
                    Tensor::Norm(_) => 0.0,
                    Tensor::Embedding | Tensor::Matrix(Matrix::Classifier) => head_error,
                    Tensor::Matrix(_) => body_error,
                };
                let error = relative_error(&mut source, &mut read, tensor);
                assert!(error <= limit, "{error} in {} with {body:?} and {group:?}", TensorName(tensor));
            }
            // What is quantized is not rounded again, whatever becomes of it.
            assert!(device(&mut read, body, head, group) == bytes);
            assert!(repacked(&mut read) == bytes);
            assert_same(&mut open(&version_0(&mut read)), &mut read);
        }
    }
}

#[test]
fn formats_of_others_are_read_back() {
    let original = checkpoint(&CONFIG);
    let mut source = open(&original);
    source.set_vocabulary(vocabulary(CONFIG.vocab_size));
    for (body, head) in [(Q8, Q8), (Q4, Q4), (Q4, Q8), (Precision::F16, Precision::F16)] {
        let bytes = ordinary(&mut source, body, head);
        let mut read = open(&bytes);
        let w2 = read.stored(Tensor::Matrix(Matrix::W2(0)));
        assert_eq!(w2, Format::F16, "its rows are no multiple of 32");
        assert!(ordinary(&mut read, body, head) == bytes);
        // Integers stay the same in the native formats, and so do the numbers.
        let repacked = repacked(&mut read);
        assert_runs(&repacked);
        assert_same(&mut read, &mut open(&repacked));
        assert_eq!(open(&repacked).vocabulary(), source.vocabulary());
    }
}

#[test]
fn every_type_of_ggml_becomes_a_native_one() {
    let config = Config { dim: 256, hidden_dim: 512, head_size: 64, vocab_size: 5, ..CONFIG };
    let types = [
        (2, Blocks::Q4_0, "attn_q"),
        (3, Blocks::Q4_1, "attn_k"),
        (6, Blocks::Q5_0, "attn_v"),
        (7, Blocks::Q5_1, "attn_output"),
        (8, Blocks::Q8_0, "ffn_gate"),
        (12, Blocks::Q4K, "ffn_up"),
        (14, Blocks::Q6K, "ffn_down"),
    ];
    let mut file = builder::Gguf::new(&config);
    for (kind, blocks, part) in types {
        for layer in 0..config.n_layers {
            let tensor = file.tensor(&format!("blk.{layer}.{part}.weight"));
            let (weights, size) = blocks.size();
            let count = tensor.data.len() as u64 / 4 / weights;
            // Bytes of all values, and scales of half precision, which are where the type has them.
            let block = |i: u64| {
                let mut block: Vec<u8> = (0..size).map(|j| ((i * 31 + j * 7) % 251) as u8).collect();
                // -128 is not native: see below.
                block.iter_mut().for_each(|byte| *byte -= u8::from(*byte == 0x80));
                let scales: &[usize] = match blocks {
                    Blocks::Q4_0 | Blocks::Q5_0 | Blocks::Q8_0 => &[0],
                    Blocks::Q6K => &[208],
                    _ => &[0, 2],
                };
                // About 0.01, different in each block.
                scales.iter().for_each(|&at| block[at..at + 2].copy_from_slice(&[(i % 200) as u8, 0x21]));
                block
            };
            (tensor.kind, tensor.data) = (kind, (0..count).flat_map(block).collect());
        }
    }
    let bytes = file.bytes();
    let mut read = open(&bytes);
    let repacked = repacked(&mut read);
    assert_runs(&repacked);
    let mut repacked = open(&repacked);
    for tensor in Tape::tensors(&config) {
        let Format::Blocks(blocks) = read.stored(tensor) else { continue };
        let exact = matches!(blocks, Blocks::Q4_0 | Blocks::Q8_0);
        let limit = if exact { 0.0 } else { 0.006 };
        let error = relative_error(&mut read, &mut repacked, tensor);
        assert!(error <= limit && (exact || error > 0.0), "{error} in {}", TensorName(tensor));
    }
}

#[test]
fn four_bits_fit_into_eight() {
    let original = checkpoint(&CONFIG);
    let four = ordinary(&mut open(&original), Q4, Q4);
    let eight = device(&mut open(&four), Q8, Q8, Group::Columns(32));
    let (mut four, mut eight) = (open(&four), open(&eight));
    for tensor in [Tensor::Embedding, Tensor::Matrix(Matrix::Wk(1))] {
        assert_eq!(four.stored(tensor), Format::Blocks(Blocks::Q4_0));
        assert_eq!(bits(&numbers(&mut four, tensor)), bits(&numbers(&mut eight, tensor)));
    }
}

#[test]
fn integers_beyond_the_native_range_are_rounded_again() {
    let original = checkpoint(&CONFIG);
    let mut bytes = ordinary(&mut open(&original), Q8, Q8);
    // The first block of the last tensor, which is the classifier: a scale of 2^-8 and -128.
    let rows = CONFIG.vocab_size * CONFIG.dim / 32 * 34;
    let start = bytes.len() - rows.next_multiple_of(32);
    bytes[start..start + 3].copy_from_slice(&[0, 0x1c, 0x80]);
    let mut read = open(&bytes);
    let classifier = Tensor::Matrix(Matrix::Classifier);
    assert_eq!(numbers(&mut read, classifier)[0], -0.5);
    let repacked = repacked(&mut read);
    let found = numbers(&mut open(&repacked), classifier)[0];
    assert!((found + 0.5).abs() < 0.001, "{found}");
}

/// A folder that is removed in the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("llamita-convert-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The model in the form of Hugging Face.
fn safetensors(source: &mut dyn Source, format: Format) -> (Vec<u8>, String) {
    let plan = Plan::floats(source.config(), format).unwrap();
    let json = hugging_face::config_json(source.config(), source.vocabulary(), format);
    let mut out = Cursor::new(Vec::new());
    let mut conversion = Conversion { source, quantizer: &mut Rounding, progress: &mut |_| () };
    hugging_face::write_safetensors(&mut conversion, &plan, &mut out).unwrap();
    (out.into_inner(), json)
}

#[test]
fn hugging_face_and_back() {
    for config in [CONFIG, Config { shared_classifier: true, norm_eps: 1e-6, ..CONFIG }] {
        let original = checkpoint(&Config { norm_eps: 1e-5, ..config });
        let mut source = open(&original);
        let (weights, json) = safetensors(&mut source, Format::F32);
        let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["rms_norm_eps"], 1e-5);
        json["rms_norm_eps"] = f64::from(config.norm_eps).into();
        let folder = Temporary::new();
        fs::write(folder.0.join("model.safetensors"), &weights).unwrap();
        fs::write(folder.0.join("config.json"), json.to_string()).unwrap();
        let mut read = Folder::open(&folder.0, None).unwrap();
        assert_eq!(read.config(), &config);
        for tensor in Tape::tensors(&config) {
            assert!(
                bits(&numbers(&mut source, tensor)) == bits(&numbers(&mut read, tensor)),
                "{}",
                TensorName(tensor)
            );
        }
        // Their second row of a head is the first of our second pair.
        let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
        let entries: serde_json::Value = serde_json::from_slice(&weights[8..header]).unwrap();
        let entry = &entries["model.layers.1.self_attn.q_proj.weight"];
        assert_eq!(entry["shape"], serde_json::json!([64, 64]));
        let start = header + entry["data_offsets"][0].as_u64().unwrap() as usize;
        let theirs = &weights[start + 64 * 4..][..64 * 4];
        let ours = numbers(&mut source, Tensor::Matrix(Matrix::Wq(1)));
        let ours: Vec<u8> = ours[2 * 64..3 * 64].iter().flat_map(|number| number.to_le_bytes()).collect();
        assert!(theirs == ours);
        // Truncated anywhere, it is refused.
        for len in (0..header + 8).step_by(7).chain([weights.len() - 1]) {
            fs::write(folder.0.join("model.safetensors"), &weights[..len]).unwrap();
            let error = Folder::open(&folder.0, None).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("model.safetensors"), "{error}");
        }
    }
}

#[test]
fn parts_of_a_folder_are_one_model() {
    let config = Config { shared_classifier: true, ..CONFIG };
    let original = checkpoint(&config);
    let mut source = open(&original);
    let (weights, json) = safetensors(&mut source, Format::Bf16);
    let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let entries: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&weights[8..header]).unwrap();
    // Every second tensor in another file, with the data of all in both.
    let part = |odd: usize| {
        let entries = entries.clone().into_iter().enumerate().filter(|(i, _)| i % 2 == odd);
        let json = serde_json::Value::Object(entries.map(|(_, entry)| entry).collect()).to_string();
        [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &weights[header..]].concat()
    };
    let folder = Temporary::new();
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let map: serde_json::Map<_, _> =
        entries.keys().enumerate().map(|(i, name)| (name.clone(), names[i % 2].into())).collect();
    let index = serde_json::json!({ "weight_map": map }).to_string();
    fs::write(folder.0.join("model.safetensors.index.json"), &index).unwrap();
    fs::write(folder.0.join("config.json"), &json).unwrap();
    for (odd, name) in names.iter().enumerate() {
        fs::write(folder.0.join(name), part(odd)).unwrap();
    }
    let mut read = Folder::open(&folder.0, None).unwrap();
    for tensor in Tape::tensors(&config).filter(|tensor| !matches!(tensor, Tensor::Norm(_))) {
        let error = relative_error(&mut source, &mut read, tensor);
        assert!(error > 0.0 && error < 0.004, "{error} in {}", TensorName(tensor));
    }

    let refused = || Folder::open(&folder.0, None).map(|_| ()).unwrap_err().to_string();
    fs::write(folder.0.join(names[1]), part(0)).unwrap();
    assert!(refused().contains("is in another file, too"), "{}", refused());
    fs::write(folder.0.join("model.safetensors.index.json"), index.replace("model-00002", "../00002"))
        .unwrap();
    assert!(refused().contains("expected a file in this folder"), "{}", refused());
    fs::remove_file(folder.0.join("model.safetensors.index.json")).unwrap();
    assert!(refused().contains("save_pretrained"), "{}", refused());
    fs::write(folder.0.join("model.safetensors"), part(0)).unwrap();
    assert!(refused().contains("is missing"), "{}", refused());
    fs::write(folder.0.join("config.json"), json.replace("\"vocab_size\": 270", "\"vocab_size\": 271"))
        .unwrap();
    fs::write(folder.0.join("model.safetensors"), &weights).unwrap();
    assert!(refused().contains("expected [271, 64] from config.json"), "{}", refused());
}

#[test]
fn truncated_files_are_refused_at_every_length() {
    let original = checkpoint(&CONFIG);
    let mut source = open(&original);
    source.set_vocabulary(vocabulary(CONFIG.vocab_size));
    let native = device(&mut source, Q4, Q8, Group::Columns(32));
    let ggml = ordinary(&mut source, Q8, Q4);
    for bytes in [&original[..], &native, &ggml] {
        let header = if bytes.starts_with(b"GGUF") { 16_000 } else { 64 };
        for len in (0..header).chain([bytes.len() / 2, bytes.len() - 64]) {
            assert!(Checkpoint::new(&bytes[..len], Cursor::new(bytes)).is_err(), "{len} of {}", bytes.len());
        }
        // A file that became shorter once it was open.
        let mut shrunk = Checkpoint::new(bytes, Cursor::new(&bytes[..header])).unwrap();
        let mut out = vec![0.0; CONFIG.vocab_size * CONFIG.dim];
        let error = shrunk.read(Tensor::Matrix(Matrix::Classifier), 0, &mut out).unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
    }
}

#[test]
fn damaged_weights_do_not_get_new_checksums() {
    let original = checkpoint(&CONFIG);
    let mut source = open(&original);
    let mut native = device(&mut source, Q4, Q8, Group::Columns(32));
    let last = native.len() - 100;
    native[last] ^= 1;
    let error = Checkpoint::new(&native, Cursor::new(&native)).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("checksum"), "{error}");
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let mut original = checkpoint(&CONFIG);
    let mut place = 0;
    llama2c::places(&CONFIG, |tensor, offset| {
        if tensor == Tensor::Matrix(Matrix::W1(1)) {
            place = offset as usize;
        }
    });
    let at = place + 4 * (3 * CONFIG.dim + 5);
    original[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let convert = |original: &[u8], plan: &Plan| {
        let mut source = open(original);
        let file = GgufFile::device(&source, plan);
        let mut conversion =
            Conversion { source: &mut source, quantizer: &mut Rounding, progress: &mut |_| () };
        file.write(&mut conversion, &mut Cursor::new(Vec::new())).unwrap_err().to_string()
    };
    let plan = Plan::native(&CONFIG, Q8, Q8, Group::Row).unwrap();
    let error = convert(&original, &plan);
    assert!(error.contains("weight 5 of row 3 of tensor blk.1.ffn_gate.weight"), "{error}");
    original[at..at + 4].copy_from_slice(&70000_f32.to_le_bytes());
    let plan = Plan::native(&CONFIG, Precision::F16, F32, Group::Row).unwrap();
    let error = convert(&original, &plan);
    assert!(error.contains("70000, half precision ends at 65504"), "{error}");
}

#[test]
fn stories260k_survives_every_way() {
    let Some(original) = data::read("data/models/stories260K.bin") else { return };
    let Some(version_1) = data::read("data/models/stories260K-v1.bin") else { return };
    let mut source = open(&original);
    let device = device(&mut source, F32, F32, Group::Columns(32));
    assert_runs(&device);
    assert!(version_0(&mut open(&device)) == original);
    let again = version_0(&mut open(&version_1));
    // All but rope's tables at the end, which this version does not have.
    let config = *source.config();
    let weights = original.len() - 4 * config.seq_len * config.head_size;
    assert_eq!(again.len(), original.len());
    assert!(again[..weights] == original[..weights]);
}

#[test]
fn stories260k_in_eight_bits_keeps_its_integers() {
    let Some(bytes) = data::read("data/models/stories260K-Q8_0.gguf") else { return };
    let mut read = open(&bytes);
    let repacked = repacked(&mut read);
    assert_runs(&repacked);
    assert_same(&mut read, &mut open(&repacked));
    assert_eq!(open(&repacked).vocabulary(), read.vocabulary());
}

#[test]
fn stories260k_of_version_2_is_near() {
    let Some(bytes) = data::read("data/models/stories260K-v2-q8.bin") else { return };
    let Some(original) = data::read("data/models/stories260K.bin") else { return };
    let (mut read, mut source) = (open(&bytes), open(&original));
    let repacked = repacked(&mut read);
    assert_runs(&repacked);
    for tensor in Tape::tensors(&source.config().clone()) {
        // Rows of 172 end within groups of eight: decoded as if they did not, all would be wrong.
        let error = relative_error(&mut source, &mut read, tensor);
        assert!(error < 0.005, "{error} in {}", TensorName(tensor));
        let error = relative_error(&mut read, &mut open(&repacked), tensor);
        assert!(error < 0.007, "{error} in {}", TensorName(tensor));
    }
    let (_, columns) = Tape::shape(source.config(), Tensor::Matrix(Matrix::W2(0)));
    assert_eq!(Integers::of(read.stored(Tensor::Matrix(Matrix::W2(0))), columns), None);
}

#[test]
fn the_tokenizer_of_stories260k_is_the_same_again() {
    for name in ["tok512.bin", "tokenizer-32000.bin"] {
        let Some(bytes) = data::read(&format!("data/models/{name}")) else { return };
        let vocabulary = from_llama2c_bin(&bytes).unwrap();
        assert!(to_llama2c_bin(&vocabulary).unwrap() == bytes, "{name}");
    }
}
