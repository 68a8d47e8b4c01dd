//! The files of a result: written under other names, and renamed once all of them are complete.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Kind, Options, folder};
use crate::error::{Error, Result};
use crate::plot;

/// The tokenizer of llama2.c.
pub const TOKENIZER_BIN: &str = "tokenizer.bin";
/// What Hugging Face has beside the weights.
pub const CONFIG: &str = "config.json";
/// Where that is, if it is in parts.
const INDEX: &str = "model.safetensors.index.json";
/// Its tokenizer, if it is of the SentencePiece kind.
pub const TOKENIZER_MODEL: &str = "tokenizer.model";
/// What is to be known of the tokenizer.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The files to write; what is unfinished is removed in the end.
pub struct Output {
    /// The file with the weights.
    path: PathBuf,
    /// Files that may belong to it.
    others: Vec<PathBuf>,
    /// The tokenizer that was found beside the model, which is read without being named.
    tokenizer: Option<PathBuf>,
    /// What is drawn, which is written apart from these.
    plot: Option<PathBuf>,
    /// Those that have been begun under other names, which are nobody else's.
    begun: Vec<PathBuf>,
    force: bool,
}

impl Output {
    /// Checks where the result goes before any work is done.
    pub fn new(options: &Options, kind: Kind) -> Result<Self> {
        let out = &options.output;
        let is_folder =
            kind == Kind::Safetensors && out.extension().is_none_or(|extension| extension != "safetensors");
        let path = if is_folder { out.join("model.safetensors") } else { out.clone() };
        let others: &[&str] = match kind {
            Kind::Device | Kind::Gguf => &[],
            Kind::Llama2c => &[TOKENIZER_BIN],
            Kind::Safetensors => &[CONFIG, TOKENIZER_MODEL, TOKENIZER_CONFIG],
        };
        let others: Vec<_> = others.iter().map(|name| path.with_file_name(name)).collect();
        if others.contains(&path) {
            return Err(Error::usage(format_args!(
                "{} is where the tokenizer goes, expected another name for the model: choose one such as \
                 model.bin",
                path.display()
            )));
        }
        let index = path.with_file_name(INDEX);
        if kind == Kind::Safetensors && index.exists() {
            return Err(Error::file(
                &index,
                "this names other files with weights, which would be read in place of the result:                  choose another folder",
            ));
        }
        let plot = options.calibration.plot().map(Path::to_owned);
        let output = Self { path, others, tokenizer: None, plot, begun: Vec::new(), force: options.force };
        output.check(options)?;
        Ok(output)
    }

    /// Neither the model that is read nor, unless it was asked for, any other file is replaced.
    fn check(&self, options: &Options) -> Result<()> {
        let named = [Some(options.input.as_path()), options.tokenizer.as_deref()].into_iter().flatten();
        let read: Vec<&Path> =
            named.chain(options.pruning.inputs()).chain(options.calibration.input()).collect();
        let is_read = |path: &Path| {
            read.iter().any(|read| match folder(read) {
                Some(folder) => same(folder, &parent(path)),
                None => same(read, path),
            })
        };
        let goes_to = |path: &PathBuf, plot: &Path| {
            path == plot || path.file_name() == plot.file_name() && same(&parent(path), &parent(plot))
        };
        if let Some(plot) = &self.plot {
            plot::check(plot, &[])?;
            let is_written =
                self.paths().any(|path| goes_to(path, plot) || path.is_file() && same(path, plot));
            if is_written || plot.exists() && is_read(plot) {
                return Err(plot::taken(plot));
            }
        }
        for path in self.paths().filter(|path| path.exists()) {
            if path.is_dir() {
                return Err(Error::file(path, "this is a directory, expected a file to write: name a file"));
            }
            // Even to look whether it is read would wait at a pipe, and a device would become a file.
            if !path.is_file() {
                return Err(Error::file(
                    path,
                    "this is a pipe or a device, expected a file to write: name a file",
                ));
            }
            if is_read(path) {
                return Err(is_input(path));
            }
            // A tokenizer.bin that is there may be the very one that would be written: see `also`.
            let may_be_same = path.ends_with(TOKENIZER_BIN);
            if !self.force && !may_be_same {
                return Err(exists(path));
            }
        }
        Ok(())
    }

    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.path].into_iter().chain(&self.others)
    }

    /// The file with the weights, as it will be called.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the tokenizer of the model from being replaced.
    pub fn protect(&mut self, tokenizer: PathBuf) -> Result<()> {
        if let Some(plot) = self.plot.as_ref().filter(|plot| same(plot, &tokenizer)) {
            return Err(plot::taken(plot));
        }
        self.tokenizer = Some(tokenizer);
        Ok(())
    }

    /// The file with the weights, to be written.
    pub fn create(&mut self) -> Result<File> {
        self.begin(&self.path.clone())
    }

    /// A new file that gets this name in the end.
    fn begin(&mut self, path: &Path) -> Result<File> {
        let created = fs::create_dir_all(parent(path)).and_then(|()| File::create_new(partial(path)));
        let file = created.map_err(|error| {
            Error::file(
                path,
                format_args!("it cannot be created ({error}): check the folder and its permissions"),
            )
        })?;
        self.begun.push(path.to_owned());
        Ok(file)
    }

    /// Writes a file that belongs to it, unless one is there that says the same.
    pub fn also(&mut self, name: &str, bytes: &[u8], is_same: impl FnOnce(&[u8]) -> bool) -> Result<()> {
        let path = &self.path.with_file_name(name);
        if fs::read(path).is_ok_and(|found| is_same(&found)) {
            return Ok(());
        }
        if self.tokenizer.as_ref().is_some_and(|tokenizer| same(tokenizer, path)) {
            return Err(is_input(path));
        }
        if path.exists() && !self.force {
            return Err(exists(path));
        }
        self.begin(path)?.write_all(bytes).map_err(|error| not_written(path, &error))
    }

    /// Gives the files their names, once they are on the disk: what they replace is gone then.
    pub fn publish(&mut self) -> Result<()> {
        for path in &self.begun {
            let file = File::options().write(true).open(partial(path));
            file.and_then(|file| file.sync_all()).map_err(|error| not_written(path, &error))?;
        }
        for path in &self.begun {
            fs::rename(partial(path), path).map_err(|error| not_written(path, &error))?;
        }
        self.begun.clear();
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // After success there is none.
        for path in &self.begun {
            let _ = fs::remove_file(partial(path));
        }
    }
}

fn exists(path: &Path) -> Error {
    Error::file(
        path,
        "there is such a file already, expected none: choose another name, or replace it with --force",
    )
}

fn is_input(path: &Path) -> Error {
    Error::usage(format_args!(
        "{} is read for the conversion, expected another file to write: choose another name or folder",
        path.display()
    ))
}

fn not_written(path: &Path, error: &std::io::Error) -> Error {
    Error::file(path, format_args!("it cannot be written ({error}): check the folder and the space there"))
}

/// Another name beside the file, so that nobody finds half a model and the rename stays on one disk; no other
/// run has the same.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != "" => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether two paths lead to one file or folder, through links of either kind, too.
fn same(a: &Path, b: &Path) -> bool {
    same_file::is_same_file(a, b).unwrap_or(false)
}
