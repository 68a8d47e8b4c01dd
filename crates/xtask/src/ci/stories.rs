//! Stories of quantized models, which every machine must tell alike to the byte.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::report::Outcome;
use super::tools::{cargo, output, run};

/// The model.
const MODEL: &str = "models/nano.gguf";

/// How the model is quantized, as arguments of `llamita convert`.
const FORMATS: [(&str, &[&str]); 7] = [
    ("q8-32", &["--quant", "q8", "--group", "32"]),
    ("q8-64", &["--quant", "q8", "--group", "64"]),
    ("q8-row", &["--quant", "q8", "--group", "row"]),
    ("q4-32", &["--quant", "q4", "--group", "32"]),
    ("q4-64", &["--quant", "q4", "--group", "64"]),
    ("q4-row", &["--quant", "q4", "--group", "row"]),
    ("q4-head-q8", &["--body", "q4", "--head", "q8", "--group", "32"]),
];

/// The formats of the key/value cache, as arguments of the program that tells the stories.
const CACHES: [(&str, &[&str]); 2] = [("f32", &[]), ("q8", &["--kv", "q8"])];

/// The arguments of cargo by which the program is named.
pub const EXAMPLE: [&str; 4] = ["--package", "llamita", "--example", "story"];

/// Scalar kernels and the best ones of this machine, alone and in a team.
pub fn native() -> Result<Outcome> {
    let stories = Stories::prepare()?;
    for arguments in [
        &["--scalar", "--threads", "2"][..],
        &["--scalar", "--threads", "3"],
        &["--threads", "1"],
        &["--threads", "2"],
        &["--threads", "3"],
    ] {
        stories.compare(&arguments.join(" "), None, || this_machine(arguments))?;
    }
    Ok(Outcome::Passed)
}

/// A call of the program on this machine.
fn this_machine(arguments: &[&str]) -> Command {
    let mut command = cargo("run");
    command.arg("--quiet").args(EXAMPLE).arg("--").args(arguments);
    command
}

/// Models in every quantized format, and the stories that the scalar kernels tell of them.
pub struct Stories {
    /// Holds the models.
    _folder: TempDir,
    models: Vec<PathBuf>,
    /// With each format of the cache.
    expected: [String; CACHES.len()],
}

impl Stories {
    /// Convert the model and tell its stories.
    pub fn prepare() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut models = Vec::new();
        for (name, format) in FORMATS {
            let model = folder.path().join(name).with_extension("gguf");
            let mut command = cargo("run");
            command.args(["--quiet", "--package", "llamita-cli", "--", "convert", "--json"]).args(format);
            command.arg(MODEL).arg(&model);
            output(&mut command)?;
            models.push(model);
        }
        // What is built on the way would be printed among the stories' errors.
        run(cargo("build").arg("--quiet").args(EXAMPLE))?;
        let mut stories = Self { _folder: folder, models, expected: Default::default() };
        for (at, (_, arguments)) in CACHES.into_iter().enumerate() {
            let (unit, told) = stories.told(this_machine(&["--scalar"]).args(arguments))?;
            ensure!(unit == "scalar", "the scalar kernels call themselves {unit}");
            // Agreement on nothing would be no agreement.
            for (name, story) in parts(&told) {
                ensure!(story.starts_with("Once upon a time") && story.len() > 500, "{name}: {story}");
            }
            ensure!(parts(&told).count() == FORMATS.len(), "{told}");
            stories.expected[at] = told;
        }
        Ok(stories)
    }

    /// Compare the stories that a program tells with those of the scalar kernels. Where a unit is named, the
    /// program must have used it.
    pub fn compare(&self, what: &str, unit: Option<&str>, program: impl Fn() -> Command) -> Result<()> {
        for ((cache, arguments), expected) in CACHES.into_iter().zip(&self.expected) {
            let (found, told) = self.told(program().args(arguments))?;
            // The scalar kernels would pass as well, and prove nothing.
            ensure!(unit.is_none_or(|unit| unit == found), "{what}: the kernels are {found}, not {unit:?}");
            if told != *expected {
                let pairs = parts(expected).zip(parts(&told));
                let different = pairs.into_iter().find(|(expected, told)| expected != told);
                let (expected, told) = different.unwrap_or_default();
                bail!(
                    "{what}, {found}, cache {cache}: {} tells\n{}\ninstead of\n{}",
                    told.0,
                    told.1,
                    expected.1
                );
            }
            let bytes: usize = parts(&told).map(|(_, story)| story.len()).sum();
            println!(
                "{what}, {found}, cache {cache}: {} stories of {bytes} bytes are those of scalar",
                FORMATS.len()
            );
        }
        Ok(())
    }

    /// What computes, and all stories.
    fn told(&self, program: &mut Command) -> Result<(String, String)> {
        let told = output(program.args(&self.models))?;
        let (unit, stories) = told.split_once('\n').context("no stories were told")?;
        Ok((unit.to_owned(), stories.to_owned()))
    }
}

/// The stories with the names of their models.
fn parts(told: &str) -> impl Iterator<Item = (&str, &str)> {
    told.split("== ").skip(1).filter_map(|part| part.split_once('\n'))
}
