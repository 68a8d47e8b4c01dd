//! GGUF files with quantized tensors and checksums, as `llamita convert` writes them.

use llamita::format::{FormatError, Model};
use llamita::weights::{Entry, Format, Matrix};
use llamita::{
    CacheFormat, Capacity, Config, Engine, Kernels, Resident, Solo, State, Tape, Weights, state_len,
};
use llamita_kernels::quantized::Quant;

use crate::builder::{CONFIG, Gguf, SHARED, Tensor, Value, tensors};
use crate::{load, refusal};

const DAMAGED: &str = "the file is damaged, copy or download it again";
const CONVERT: &str = "the file is damaged, convert the original model again";

const GROUPS: [Option<usize>; 3] = [Some(32), Some(64), None];

/// A shape whose rows have several groups.
const WIDE: Config = Config { dim: 96, head_size: 24, hidden_dim: 70, ..CONFIG };

/// What is said of a quantized file after a change.
#[track_caller]
fn refused(change: impl FnOnce(&mut Gguf)) -> String {
    let mut file = Gguf::device(&CONFIG, 8, Some(32));
    change(&mut file);
    refusal(&file.bytes())
}

/// What is said of the checksums of a file.
fn verified(file: &Gguf) -> Result<usize, String> {
    Model::read(&file.bytes()).unwrap().verify().map_err(|error| error.to_string())
}

/// Calls `f` with the weights of a file.
fn with_weights<R>(file: &Gguf, f: impl FnOnce(Resident<'_>) -> R) -> R {
    let bytes = file.bytes();
    let mut words = vec![0_u64; bytes.len().div_ceil(8)];
    let memory = &mut zerocopy::IntoBytes::as_mut_bytes(&mut words[..])[..bytes.len()];
    memory.copy_from_slice(&bytes);
    let model = Model::read(memory).unwrap();
    let mut entries = vec![Entry::EMPTY; Tape::len(model.config())];
    f(Resident::new(model.tape(&mut entries).unwrap(), memory).unwrap())
}

#[test]
fn good_files_are_used_in_place() {
    for config in [CONFIG, SHARED, WIDE] {
        for (bits, quant) in [(8, Quant::Q8), (4, Quant::Q4)] {
            for group in GROUPS {
                let file = Gguf::device(&config, bits, group);
                assert_eq!(verified(&file), Ok(file.tensors.len()));
                let bytes = file.bytes();
                let (found, entries, vocabulary) = load(&bytes).unwrap();
                assert_eq!(found, config);
                assert!(vocabulary.is_some());
                for (name, _, columns, index) in tensors(&config) {
                    let group = group.unwrap_or(columns.next_multiple_of(32)) as u32;
                    let quantized = Format::Quantized { quant, group };
                    let expected = if name.contains("norm") { Format::F32 } else { quantized };
                    assert_eq!(entries[index].format, expected, "{name}");
                }
                with_weights(&file, |weights| {
                    check_weights(weights, if bits == 8 { 0.0 } else { 1.0 / 7.0 });
                    check_engine(weights);
                });
            }
        }
    }
}

/// Every weight is its tensor's index plus one, but for a part of it.
fn check_weights(mut weights: Resident<'_>, error: f32) {
    let config = *weights.config();
    for tensor in Tape::tensors(&config) {
        let llamita::weights::Tensor::Matrix(matrix) = tensor else { continue };
        let shared = matrix == Matrix::Classifier && config.shared_classifier;
        let expected = if shared { 1.0 } else { Tape::index(&config, tensor) as f32 + 1.0 };
        let (rows, columns) = Tape::shape(&config, tensor);
        let [lent] = weights.lend([matrix], [0]).unwrap();
        let mut out = vec![0.0; columns];
        for row in 0..rows {
            lent.row(row, &mut out);
            let near = |weight: &f32| (weight - expected).abs() <= error * expected;
            assert!(out.iter().all(near), "{tensor:?}, row {row}: {out:?}");
        }
    }
}

fn check_engine(weights: Resident<'_>) {
    let config = *weights.config();
    let capacity = Capacity { context: 7, batch: 3, logits: 1, cache: CacheFormat::Q8 };
    let mut memory = vec![f32::NAN; state_len(&config, capacity).unwrap()];
    let state = State::new(&config, capacity, &mut memory).unwrap();
    let mut engine = Engine::new(weights, state, Solo, Kernels::detect());
    let logits = engine.forward(&[1, 2, 3], 0, 1).unwrap();
    assert!(logits.iter().all(|logit| logit.is_finite() && *logit != 0.0), "{logits:?}");
}

#[test]
fn formats_may_be_mixed_where_inputs_differ() {
    let mut file = Gguf::new(&CONFIG);
    file.quantize("token_embd.weight", 8, Some(64)).quantize("output.weight", 4, None);
    for part in ["attn_q", "attn_k", "attn_v"] {
        file.quantize(&format!("blk.0.{part}.weight"), if part == "attn_k" { 8 } else { 4 }, Some(32));
    }
    // Beside floats there is nothing to agree on.
    file.quantize("blk.1.ffn_up.weight", 4, Some(64)).quantize("blk.1.ffn_down.weight", 4, Some(32));
    with_weights(&file, check_engine);
}

#[test]
fn layouts_have_a_version() {
    let set = |value| {
        refused(|file| {
            file.set("llamita.layout", value);
        })
    };
    assert_eq!(
        set(Value::u32(1)),
        "the file has llamita's layout 1, supported is 2: use the llamita that wrote it, \
         or convert the original model again"
    );
    assert!(set(Value::string("1")).starts_with("llamita.layout is of type "));
    // The version counts where nothing is quantized, too.
    let mut floats = Gguf::new(&CONFIG);
    floats.set("llamita.layout", Value::u32(0));
    assert!(refusal(&floats.bytes()).starts_with("the file has llamita's layout 0, supported is 2"));
}

#[test]
fn a_tensor_is_stored_once() {
    let again = |name: &str, as_name: &str| {
        refused(|file| {
            let tensor = Tensor { name: as_name.to_owned(), ..file.tensor(name).clone() };
            file.tensors.push(tensor);
            file.seal();
        })
    };
    let twice = format!("tensor blk.0.attn_k.weight appears twice, expected once: {DAMAGED}");
    assert_eq!(again("blk.0.attn_k.q8", "blk.0.attn_k.q8"), twice);
    assert_eq!(again("blk.0.attn_k.q8", "blk.0.attn_k.q4"), twice);
    // What layout 1 had.
    assert_eq!(
        again("blk.0.attn_k.q8", "blk.0.attn_k.scales"),
        "tensor blk.0.attn_k.scales is not supported, and ignoring it would compute a different model: \
         choose a plain Llama model"
    );
}

#[test]
fn types_are_fixed() {
    for (name, kind, text) in [
        ("blk.0.attn_k.q8", 0, "tensor blk.0.attn_k.weight is quantized and of F32, expected I8"),
        ("output.q8", 99, "tensor output.weight is quantized and of type 99, expected I8"),
    ] {
        assert_eq!(refused(|file| file.tensor(name).kind = kind), format!("{text}: {CONVERT}"));
    }
    let norm = |name: &str| {
        refused(|file| {
            let norm = file.tensor(name);
            norm.name = norm.name.replace("weight", "q8");
            norm.kind = 24;
        })
    };
    assert_eq!(
        norm("blk.0.attn_norm.weight"),
        "tensor blk.0.attn_norm.weight is I8, norms must be F32: get the model with these"
    );
    assert!(norm("output_norm.weight").starts_with("tensor output_norm.weight is I8, norms must be F32"));
}

#[test]
fn shapes_are_those_of_the_model() {
    // Rows of 8 become groups of 32, 4 rows become 8, each with a scale.
    const GOOD: [u64; 2] = [8 * 32 + 16, 1];
    let shape =
        |dimensions: &[u64]| refused(|file| file.tensor("blk.0.attn_k.q8").dimensions = dimensions.to_vec());
    assert_eq!(Gguf::device(&CONFIG, 8, Some(32)).tensor("blk.0.attn_k.q8").dimensions, GOOD);
    let text = |found: &str| {
        format!(
            "tensor blk.0.attn_k.weight is quantized and has {found} bytes, which are no groups of a matrix of \
             8 x 4: {CONVERT}"
        )
    };
    // Another number of rows or columns, without scales, of layout 1.
    assert_eq!(shape(&[272, 2]), text("272 x 2"));
    assert_eq!(shape(&[8, 34]), text("8 x 34"));
    assert_eq!(shape(&[273, 1]), text("273 x 1"));
    assert_eq!(shape(&[256, 1]), text("256 x 1"));
    assert_eq!(shape(&[144, 1]), text("144 x 1"));
    assert_eq!(shape(&[272, 1, 2]), text("272 x 1"));
    for extreme in [0, 1, 7, 1 << 61, u64::MAX / 2, u64::MAX] {
        for dimensions in [[extreme, 1], [272, extreme + u64::from(extreme == 1)], [extreme, extreme]] {
            assert!(shape(&dimensions).contains("which are no groups"), "{dimensions:?}");
        }
    }
    // Four bits are not eight.
    let mut file = Gguf::device(&CONFIG, 8, Some(64));
    file.tensor("blk.0.attn_k.q8").name = "blk.0.attn_k.q4".to_owned();
    assert_eq!(refusal(&file.bytes()), text("528 x 1"));
}

#[test]
fn matrices_with_one_input_agree_on_groups() {
    for (name, first) in [
        ("blk.0.attn_q.weight", "blk.0.attn_q.weight"),
        ("blk.1.attn_v.weight", "blk.1.attn_q.weight"),
        ("blk.1.ffn_up.weight", "blk.1.ffn_gate.weight"),
    ] {
        let mut file = Gguf::new(&CONFIG);
        file.quantize(name, 4, Some(64)).quantize_all(8, Some(32));
        let text = format!(
            "tensor {first} and those beside it have groups of different sizes, expected one: {CONVERT}"
        );
        assert_eq!(refusal(&file.bytes()), text);
    }
}

#[test]
fn quantized_tensors_are_inside_the_file() {
    const NAME: &str = "blk.1.ffn_up.q4";
    let mut file = Gguf::device(&CONFIG, 4, None);
    let bytes = file.bytes();
    let text = refusal(&bytes[..bytes.len() - 1]);
    let end = format!("its tensor output.weight ends at {}", bytes.len());
    assert!(text.contains(&end), "{text}");
    for offset in [1 << 40, u64::MAX] {
        let known = file.tensor(NAME).offset.replace(offset);
        assert!(refusal(&file.bytes()).contains("is truncated or damaged"), "{}", refusal(&file.bytes()));
        file.tensor(NAME).offset = known;
    }
    file.tensor(NAME).offset = Some(32);
    let text = refusal(&file.bytes());
    assert!(text.contains("expected a multiple of 64"), "{text}");
}

/// All that has to be read before the tensors is the header, as a card's file is read.
#[test]
fn a_header_is_enough() {
    for file in [Gguf::new(&CONFIG), Gguf::device(&SHARED, 8, Some(32))] {
        let bytes = file.bytes();
        let (len, whole) = (bytes.len() as u64, Model::read(&bytes).unwrap());
        let header = whole.header_len() as usize;
        let part = Model::read_header(&bytes[..header], len).unwrap();
        let [mut expected, mut found] = [(); 2].map(|()| vec![Entry::EMPTY; Tape::len(whole.config())]);
        whole.tape(&mut expected).unwrap();
        part.tape(&mut found).unwrap();
        assert_eq!((part.config(), found), (whole.config(), expected));
        // The last bytes may be those that align the tensors.
        for end in (0..header - 64).step_by(7) {
            let error = Model::read_header(&bytes[..end], len).unwrap_err();
            assert!(end < 4 || matches!(error, FormatError::Truncated { .. }), "{end} bytes: {error}");
        }
        let shorter = Model::read_header(&bytes[..header], len - 1).unwrap();
        assert!(matches!(
            shorter.tape(&mut vec![Entry::EMPTY; Tape::len(whole.config())]),
            Err(FormatError::TensorBounds { .. })
        ));
    }
}

#[test]
fn checksums_name_what_is_damaged() {
    let set = |value| {
        let mut file = Gguf::device(&CONFIG, 8, Some(32));
        file.set("llamita.checksums", value);
        verified(&file).unwrap_err()
    };
    let count = Gguf::device(&CONFIG, 8, Some(32)).tensors.len();
    for wrong in [0, count - 1, count + 1] {
        assert_eq!(
            set(Value::array(4, &vec![Value::u32(0); wrong])),
            format!(
                "llamita.checksums gives {wrong}, expected {count} as in the list of tensors: \
                 the file is damaged, or of a variant of Llama that is not supported"
            )
        );
    }
    for value in [Value::u32(1), Value::array(10, &vec![Value::u64(1); count])] {
        let text = set(value);
        assert!(text.starts_with("llamita.checksums is of type ") && text.contains("array of u32"), "{text}");
    }
    assert_eq!(
        set(Value::array(4, &vec![Value::u32(0); count])),
        format!("the checksum of tensor token_embd.q8 is wrong: {DAMAGED}")
    );
    // Files without them pass, with floats and without.
    assert_eq!(verified(&Gguf::new(&CONFIG)), Ok(0));
    assert_eq!(verified(Gguf::device(&CONFIG, 8, None).unset("llamita.checksums")), Ok(0));
    let mut halves = Gguf::new(&CONFIG);
    halves.halve("token_embd.weight", 1, 0x3c00).halve("output.weight", 30, 0x3f80).seal();
    assert_eq!(verified(&halves), Ok(halves.tensors.len()));
}

#[test]
fn any_damaged_byte_is_found() {
    for bits in [8, 4] {
        let good = Gguf::device(&CONFIG, bits, Some(32));
        for index in 0..good.tensors.len() {
            let mut file = good.clone();
            for byte in 0..file.tensors[index].data.len() {
                file.tensors[index].data[byte] ^= 1 << (byte % 8);
                let expected =
                    format!("the checksum of tensor {} is wrong: {DAMAGED}", file.tensors[index].name);
                assert_eq!(verified(&file), Err(expected), "byte {byte}");
                file.tensors[index].data[byte] = good.tensors[index].data[byte];
            }
        }
    }
}
