//! `cargo xtask random-model`: a checkpoint of any size to measure speed with, when a trained one is not at
//! hand.

mod normal;
mod shape;

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use llamita::format::llama2c;
use llamita::weights::Tensor;
use llamita::{Config, Tape};

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
    let config = options.shape.config(options.separate);
    let bytes = llama2c::file_len(&config);
    // Another name beside the target, so that nobody finds half a model and the rename stays on one disk.
    let mut partial = options.out.file_name().context("the output needs a file name")?.to_owned();
    partial.push(".partial");
    let partial = options.out.with_file_name(partial);

    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {eta}")?;
    let progress = ProgressBar::new(bytes).with_style(style);
    let written = write_file(&partial, &config, options.seed, &progress).and_then(|()| {
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

fn write_file(path: &Path, config: &Config, seed: u64, progress: &ProgressBar) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let out = BufWriter::with_capacity(1 << 16, progress.wrap_write(file));
    write_model(out, config, seed).with_context(|| format!("cannot write {}", path.display()))
}

/// Write a model of version 0.
fn write_model(mut out: impl Write, config: &Config, seed: u64) -> Result<()> {
    let header = llama2c::header(config)?;
    out.write_all(&header)?;
    let mut written = header.len() as u64;

    let mut places = Vec::new();
    llama2c::places(config, |tensor, offset| places.push((tensor, offset)));
    let mut normal = Normal::new(seed);
    for (tensor, offset) in places {
        // Between some tensors lie tables of cosines and sines, which every reader skips.
        io::copy(&mut io::repeat(0).take(offset - written), &mut out)?;
        let (rows, columns) = Tape::shape(config, tensor);
        // Products with a normalised vector have a standard deviation of 1 then, in every layer and in the
        // logits, so that neither attention nor sampling meets numbers that no trained model has.
        let (mean, deviation) = match tensor {
            Tensor::Norm(_) => (1.0, 0.05),
            Tensor::Embedding | Tensor::Matrix(_) => (0.0, 1.0 / (columns as f32).sqrt()),
        };
        for _ in 0..rows as u64 * columns as u64 {
            let value: f32 = mean + deviation * normal.sample();
            out.write_all(&value.to_le_bytes())?;
        }
        written = offset + 4 * rows as u64 * columns as u64;
    }
    io::copy(&mut io::repeat(0).take(llama2c::file_len(config) - written), &mut out)?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(shape: &str, separate: bool, seed: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let shape: Shape = shape.parse().unwrap();
        write_model(&mut bytes, &shape.config(separate), seed).unwrap();
        bytes
    }

    #[test]
    fn the_smallest_shape_has_the_length_of_stories260k() {
        // The length of the file that llama2.c's author published.
        let bytes = model("260k", false, 1);
        assert_eq!(bytes.len(), 1_056_540);
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
