//! `cargo xtask random-model`: a checkpoint of any size to measure speed with, when a trained one is not at
//! hand.

mod normal;
mod shape;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use normal::Normal;
use shape::Shape;

/// Write a llama2.c checkpoint (version 0) with random weights
///
/// It talks nonsense, at the speed of a trained model of its size. It comes without a tokenizer: take one
/// with as many pieces as the vocabulary has.
#[derive(clap::Args)]
pub struct Options {
    /// 260k, 15m, 42m, 110m, or dim,hidden,layers,heads,kv_heads,vocab,seq: seven numbers, in elements.
    shape: Shape,

    /// The file to write; an existing one is replaced once the new one is complete.
    out: PathBuf,

    /// The start of the random numbers: the same seed gives the same file.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Give the classifier weights of its own, instead of the embedding's.
    #[arg(long)]
    separate: bool,
}

/// Write the model that was asked for.
pub fn run(options: &Options) -> Result<()> {
    let bytes =
        options.shape.file_len(options.separate).context("the model is too large to count its bytes")?;
    // Another name beside the target, so that nobody finds half a model and the rename stays on one disk.
    let mut partial = options.out.file_name().context("the output needs a file name")?.to_owned();
    partial.push(".partial");
    let partial = options.out.with_file_name(partial);

    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {eta}")?;
    let progress = ProgressBar::new(bytes).with_style(style);
    let written = write_file(&partial, options, &progress).and_then(|()| {
        let found = fs::metadata(&partial)?.len();
        ensure!(found == bytes, "wrote {found} bytes, expected {bytes}");
        fs::rename(&partial, &options.out)
            .with_context(|| format!("cannot name it {}", options.out.display()))
    });
    progress.finish_and_clear();
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&partial);
    }
    written?;
    println!("{}: {bytes} bytes", options.out.display());
    Ok(())
}

fn write_file(path: &Path, options: &Options, progress: &ProgressBar) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let out = BufWriter::with_capacity(1 << 16, progress.wrap_write(file));
    write_model(out, &options.shape, options.separate, options.seed)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Write the model in the order of llama2.c's version 0.
fn write_model(out: impl Write, shape: &Shape, separate: bool, seed: u64) -> io::Result<()> {
    let Shape { dim, hidden, layers, vocab, .. } = *shape;
    let mut tensors = Tensors { out, normal: Normal::new(seed) };

    for number in shape.header(separate) {
        tensors.out.write_all(&number.to_le_bytes())?;
    }
    tensors.matrices(1, vocab, dim)?; // token embedding
    tensors.norms(layers, dim)?; // attention norm
    tensors.matrices(layers, dim, dim)?; // wq
    tensors.matrices(layers, shape.kv_dim(), dim)?; // wk
    tensors.matrices(layers, shape.kv_dim(), dim)?; // wv
    tensors.matrices(layers, dim, dim)?; // wo
    tensors.norms(layers, dim)?; // feed-forward norm
    tensors.matrices(layers, hidden, dim)?; // w1
    tensors.matrices(layers, dim, hidden)?; // w2
    tensors.matrices(layers, hidden, dim)?; // w3
    tensors.norms(1, dim)?; // final norm
    tensors.zeros(shape.frequencies())?; // cosines and sines, which every reader skips
    if separate {
        tensors.matrices(1, vocab, dim)?; // classifier
    }
    tensors.out.flush()
}

/// Random tensors on their way to a file.
struct Tensors<W> {
    out: W,
    normal: Normal,
}

impl<W: Write> Tensors<W> {
    /// As many matrices, each (rows, columns), one behind the other.
    fn matrices(&mut self, count: u64, rows: u64, columns: u64) -> io::Result<()> {
        // Products with a normalised vector then have a standard deviation of 1, in every layer and in the
        // logits, so that neither attention nor sampling meets numbers that no trained model has.
        let deviation = 1.0 / (columns as f32).sqrt();
        self.values(count * rows * columns, 0.0, deviation)
    }

    /// The weights of as many norms, each (columns), near 1.
    fn norms(&mut self, count: u64, columns: u64) -> io::Result<()> {
        self.values(count * columns, 1.0, 0.05)
    }

    fn zeros(&mut self, count: u64) -> io::Result<()> {
        self.values(count, 0.0, 0.0)
    }

    fn values(&mut self, count: u64, mean: f32, deviation: f32) -> io::Result<()> {
        for _ in 0..count {
            let value = mean + deviation * self.normal.sample();
            self.out.write_all(&value.to_le_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(shape: &str, separate: bool, seed: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_model(&mut bytes, &shape.parse().unwrap(), separate, seed).unwrap();
        bytes
    }

    #[test]
    fn the_smallest_shape_has_the_length_of_stories260k() {
        // The length of the file that llama2.c's author published.
        let bytes = model("260k", false, 1);
        assert_eq!(bytes.len(), 1_056_540);
        assert_eq!("260k".parse::<Shape>().unwrap().file_len(false), Some(bytes.len() as u64));
    }

    #[test]
    fn a_separate_classifier_follows_at_the_end() {
        let (shared, separate) = (model("8,16,2,4,2,32,16", false, 1), model("8,16,2,4,2,32,16", true, 1));
        assert_eq!(separate.len(), shared.len() + 32 * 8 * 4);
        assert_eq!(shared[20..24], 32i32.to_le_bytes());
        assert_eq!(separate[20..24], (-32i32).to_le_bytes());
        assert_eq!(shared[28..], separate[28..shared.len()]);
    }

    #[test]
    fn the_seed_decides_the_weights() {
        assert_eq!(model("8,16,2,4,2,32,16", false, 7), model("8,16,2,4,2,32,16", false, 7));
        assert_ne!(model("8,16,2,4,2,32,16", false, 7), model("8,16,2,4,2,32,16", false, 8));
    }
}
