//! Trained weights as a model to convert, and models to begin with or to learn from.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};
use llamita::weights::{Format, Matrix, Tensor};
use llamita::{Config, Tape};
use llamita_convert::rope::{from_half_split, to_half_split};
use llamita_convert::source::Checkpoint;
use llamita_convert::{Conversion, GgufFile, Plan, Precision, Rounding, Source, Vocabulary};

use crate::network;

/// A model in memory: floats in tape order.
pub struct Model {
    /// Its shape.
    pub config: Config,
    /// Its tokens.
    pub vocabulary: Vocabulary,
    /// What it is called.
    pub name: Option<String>,
    /// (rows, columns) each, queries and keys with the pairs of rope half a head apart; a shared classifier has none.
    pub tensors: Vec<Vec<f32>>,
}

impl Model {
    /// Reads a llama2.c checkpoint or a GGUF file, whose classifier is to be the embedding.
    pub fn open(path: &Path) -> Result<Self> {
        let mut source = Checkpoint::open(path)?;
        let config = *source.config();
        let at = || format!("{}", path.display());
        let vocabulary = source.vocabulary().cloned();
        let vocabulary = vocabulary
            .context("it has no tokenizer inside: convert it with llamita convert --tokenizer")
            .with_context(at)?;
        anyhow::ensure!(
            config.shared_classifier,
            "{}: its classifier is not its embedding, which is not supported here: use another model",
            path.display()
        );
        let mut tensors = Vec::new();
        for tensor in network::tensors(&config) {
            let (rows, columns) = Tape::shape(&config, tensor);
            let mut values = vec![0.0; rows * columns];
            source.read(tensor, 0, &mut values)?;
            if is_rotated(tensor) {
                values = reordered(&values, columns, |row| from_half_split(row, config.head_size));
            }
            tensors.push(values);
        }
        Ok(Self { config, vocabulary, name: source.name().map(str::to_owned), tensors })
    }

    /// Writes the model as GGUF with floats, in place of the file if there is one.
    pub fn write(&self, path: &Path) -> Result<()> {
        let plan =
            Plan::native(&self.config, Precision::F32, Precision::F32, llamita_convert::Group::Columns(32))?;
        let image = GgufFile::device(&self.reader(), &plan);
        write_atomically(path, |file| {
            let (source, quantizer) = (&mut self.reader(), &mut Rounding);
            let mut conversion = Conversion { source, quantizer, progress: &mut |_| () };
            Ok(image.write(&mut conversion, &mut BufWriter::new(file))?)
        })
    }

    /// The model, to convert it.
    pub const fn reader(&self) -> Reader<'_> {
        Reader(self)
    }
}

/// Writes a file under another name, and gives it its own once it is whole and on the disk.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let at = || format!("{}: cannot be written, check the space and permissions there", path.display());
    let mut file = File::create(&temporary).with_context(at)?;
    let written = write(&mut file).and_then(|()| {
        let moved = file.sync_all().and_then(|()| fs::rename(&temporary, path));
        moved.with_context(at)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Whether rope turns the rows of a tensor.
const fn is_rotated(tensor: Tensor) -> bool {
    matches!(tensor, Tensor::Matrix(Matrix::Wq(_) | Matrix::Wk(_)))
}

/// Rows in another order, which says from where each comes.
fn reordered(values: &[f32], columns: usize, from: impl Fn(usize) -> usize) -> Vec<f32> {
    let rows = 0..values.len() / columns;
    rows.flat_map(|row| &values[from(row) * columns..][..columns]).copied().collect()
}

/// A model as a source of conversions.
pub struct Reader<'m>(&'m Model);

impl Source for Reader<'_> {
    fn config(&self) -> &Config {
        &self.0.config
    }

    fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    fn vocabulary(&self) -> Option<&Vocabulary> {
        Some(&self.0.vocabulary)
    }

    fn rope_tables(&self) -> Option<&[u8]> {
        None
    }

    fn stored(&self, _: Tensor) -> Format {
        Format::F32
    }

    fn read(&mut self, tensor: Tensor, first_row: usize, out: &mut [f32]) -> llamita_convert::Result<()> {
        let Model { config, tensors, .. } = self.0;
        let tensor = match tensor {
            Tensor::Matrix(Matrix::Classifier) => Tensor::Embedding,
            tensor => tensor,
        };
        let (_, columns) = Tape::shape(config, tensor);
        let values = &tensors[Tape::index(config, tensor)];
        for (row, out) in (first_row..).zip(out.chunks_exact_mut(columns)) {
            let row = if is_rotated(tensor) { to_half_split(row, config.head_size) } else { row };
            out.copy_from_slice(&values[row * columns..][..columns]);
        }
        Ok(())
    }

    fn read_integers(
        &mut self,
        tensor: Tensor,
        _: usize,
        _: &mut [i8],
        _: &mut [u16],
    ) -> llamita_convert::Result<()> {
        unreachable!("{tensor:?} is stored in floats")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Dropout, Network, initial};
    use crate::tokenizer;
    use burn::tensor::{Device, Tensor as Numbers};
    use llamita::weights::Entry;
    use llamita::{CacheFormat, Capacity, Engine, Kernels, Resident, Solo, State, state_len};
    use llamita_convert::{Group, hugging_face, llama2c, vocabulary};
    use llamita_kernels::quantized::Quant;
    use llamita_storage::ModelFile;

    fn model() -> Model {
        let text = "a llama and a llama and another llama, and so on and on, 1 2 3";
        let vocabulary = tokenizer::train(std::iter::repeat_n(text, 2), 290).unwrap();
        let config = Config {
            dim: 32,
            hidden_dim: 48,
            n_layers: 3,
            n_heads: 4,
            n_kv_heads: 2,
            head_size: 8,
            vocab_size: 290,
            seq_len: 192,
            norm_eps: 1e-5,
            rope_theta: 1e4,
            shared_classifier: true,
        };
        let mut tensors = initial(&config, 1);
        // As large as trained ones.
        tensors.iter_mut().flatten().filter(|value| **value != 1.0).for_each(|value| *value *= 8.0);
        Model { config, vocabulary, name: Some("a test".to_owned()), tensors }
    }

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("llamita-train-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_engine_computes_the_same_logits() {
        let (model, folder) = (model(), Folder::new("logits"));
        let path = folder.0.join("model.gguf");
        model.write(&path).unwrap();
        let tokens: Vec<u32> = (0..150).map(|i| (i * 37 + 5) % 290).collect();

        let file = ModelFile::open(&path).unwrap();
        let header = llamita::Model::read(file.bytes()).unwrap();
        let mut entries = vec![Entry::EMPTY; Tape::len(header.config())];
        let weights = Resident::new(header.tape(&mut entries).unwrap(), file.bytes()).unwrap();
        let capacity = Capacity { context: 192, batch: 150, logits: 150, cache: CacheFormat::F32 };
        let mut memory = vec![0.0; state_len(&model.config, capacity).unwrap()];
        let state = State::new(&model.config, capacity, &mut memory).unwrap();
        let mut engine = Engine::new(weights, state, Solo, Kernels::detect());
        let expected = engine.forward(&tokens, 0, 150).unwrap();

        let tensors: Vec<Numbers<2>> = network::tensors(&model.config)
            .zip(&model.tensors)
            .map(|(name, values)| network::on_device(&model.config, name, values, &Device::flex()))
            .collect();
        let found = Network::new(model.config).forward(&tensors, &tokens, 150, &mut Dropout::none());
        let found: Vec<f32> = found.into_data().try_to_vec().unwrap();
        let difference = found.iter().zip(expected.iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let size = expected.iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
        println!("logits up to {size} differ by at most {difference}");
        assert!(size > 1.0 && difference < 1e-4, "{difference} of {size}");
    }

    /// Every form that llamita-convert writes has the weights of the trainer, or what they are rounded to.
    #[test]
    fn it_is_written_in_every_form() {
        let (model, folder) = (model(), Folder::new("forms"));
        let config = &model.config;
        let convert =
            |name: &str, write: &dyn Fn(&mut Conversion<'_>, &mut File) -> llamita_convert::Result<()>| {
                let path = folder.0.join(name);
                let (source, quantizer) = (&mut model.reader(), &mut Rounding);
                let mut conversion = Conversion { source, quantizer, progress: &mut |_| () };
                write(&mut conversion, &mut File::create(&path).unwrap()).unwrap();
                path
            };
        let largest = |source: &mut dyn Source| {
            let mut largest = 0.0_f32;
            for tensor in network::tensors(config) {
                let (rows, columns) = Tape::shape(config, tensor);
                let [mut found, mut expected] = [(); 2].map(|()| vec![0.0; rows * columns]);
                source.read(tensor, 0, &mut found).unwrap();
                model.reader().read(tensor, 0, &mut expected).unwrap();
                largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(largest, f32::max);
            }
            largest
        };
        for (body, head, bound) in
            [(Quant::Q8, Quant::Q8, 0.01), (Quant::Q4, Quant::Q8, 0.1), (Quant::Q4, Quant::Q4, 0.1)]
        {
            let [body, head] = [body, head].map(Precision::Quantized);
            for group in [Group::Columns(32), Group::Columns(64), Group::Row] {
                let plan = Plan::native(config, body, head, group).unwrap();
                let image = GgufFile::device(&model.reader(), &plan);
                let path = convert("device.gguf", &|conversion, file| image.write(conversion, file));
                let found = largest(&mut Checkpoint::open(&path).unwrap());
                assert!(found > 0.0 && found < bound, "{body:?}, {head:?}, {group:?}: {found}");
            }
        }
        let path = convert("model.bin", &|conversion, file| llama2c::write(conversion, file));
        assert_eq!(largest(&mut Checkpoint::open(&path).unwrap()), 0.0);
        let floats = Plan::floats(config, Format::F32).unwrap();
        let path = convert("model.safetensors", &|conversion, file| {
            hugging_face::write_safetensors(conversion, &floats, file)
        });
        let json = hugging_face::config_json(config, Some(&model.vocabulary), Format::F32);
        fs::write(folder.0.join("config.json"), json).unwrap();
        let tokenizer = folder.0.join("tokenizer.bin");
        fs::write(&tokenizer, vocabulary::to_llama2c_bin(&model.vocabulary).unwrap()).unwrap();
        let folder = hugging_face::Folder::open(path.parent().unwrap(), Some(&tokenizer));
        assert_eq!(largest(&mut folder.unwrap()), 0.0);
    }

    #[test]
    fn a_model_comes_back_as_it_was() {
        let (model, folder) = (model(), Folder::new("read"));
        let path = folder.0.join("model.gguf");
        model.write(&path).unwrap();
        let read = Model::open(&path).unwrap();
        assert!(read.tensors == model.tensors && read.config == model.config);
        assert!(read.vocabulary == model.vocabulary && read.name == model.name);
    }
}
