//! The steps of training.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor};
use llamita::Config;
use llamita_convert::Vocabulary;

use crate::checkpoint::{Checkpoint, Facts, Progress};
use crate::fake_quant;
use crate::model::Model;
use crate::network::{self, Dropout, Network};
use crate::parameters::{Parameters, values};
use crate::report::{Record, Report};
use crate::settings::{Settings, Training};
use crate::stories::{Batch, Stories, Stream};

/// What is trained with.
pub struct Material {
    /// Tokens.
    pub vocabulary: Vocabulary,
    /// Stories of `--text`.
    pub stories: Stories,
    /// Stories of `--extra`.
    pub extra: Option<Stories>,
    /// Stories of `--validation`.
    pub validation: Stories,
    /// The model of `--teacher`.
    pub teacher: Option<Model>,
    /// The model of `--init`.
    pub first: Option<Model>,
}

/// Where results go.
pub struct Files {
    /// The folder of `-o`.
    pub folder: PathBuf,
}

impl Files {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The state of the training.
    pub fn checkpoint(&self) -> PathBuf {
        self.file("checkpoint.safetensors")
    }

    /// The best model so far.
    pub fn model(&self) -> PathBuf {
        self.file("model.gguf")
    }

    /// Refuses a folder in which a file of another origin would be replaced.
    pub fn check_free(&self) -> Result<()> {
        for name in ["model.gguf", "log.jsonl", "loss.svg"] {
            let file = self.file(name);
            ensure!(
                !file.exists(),
                "{}: there is such a file, but no checkpoint of a training: remove it, or choose another folder with -o",
                file.display()
            );
        }
        Ok(())
    }
}

/// What to say of a loss or a gradient that is no number.
fn diverged(loss: f64, step: usize) -> String {
    format!("the loss is {loss} at step {step}: begin anew with a lower training.learning_rate or muon_rate")
}

/// A run of the training.
pub struct Trainer {
    config: Config,
    settings: Settings,
    threads: usize,
    network: Network,
    parameters: Parameters,
    vocabulary: Vocabulary,
    /// The stream with extra stories, if there are any, and the one without.
    streams: (Option<Stream>, Stream),
    validation: Stream,
    teacher: Option<(Network, Vec<Tensor<2>>)>,
    progress: Progress,
}

impl Trainer {
    /// Begins, or goes on from a checkpoint.
    pub fn new(
        settings: Settings,
        material: Material,
        checkpoint: Option<Checkpoint>,
        device: Device,
        threads: usize,
    ) -> Result<Self> {
        let config = settings.model.config()?;
        let Material { vocabulary, stories, extra, validation, teacher, first } = material;
        let training = &settings.training;
        let facts = Facts {
            text: stories.tokens(),
            extra: extra.as_ref().map_or(0, Stories::tokens),
            validation: validation.tokens(),
            teacher: teacher.is_some(),
        };
        let (values, memory, progress) = match (checkpoint, first) {
            (Some(Checkpoint { progress, weights, memory }), _) => {
                ensure!(
                    progress.facts == facts,
                    "the training in this folder was begun with other texts or another teacher, {:?}, now {facts:?}: \
                     name the same as then, or choose another folder with -o",
                    progress.facts
                );
                (weights, memory, progress)
            }
            (None, first) => {
                let values =
                    first.map_or_else(|| network::initial(&config, training.seed), |model| model.tensors);
                (values, Vec::new(), Progress::new(settings.clone(), facts))
            }
        };
        let mut parameters = Parameters::new(&config, &values, training, &device.clone().autodiff());
        if !memory.is_empty() {
            parameters.remember(&memory)?;
        }
        let teacher = teacher.map(|model| {
            let tensors = network::tensors(&model.config).zip(&model.tensors);
            let tensors =
                tensors.map(|(name, values)| network::on_device(&model.config, name, values, &device));
            (Network::new(model.config), tensors.collect())
        });
        let with_extra = extra.map(|extra| Stream::new(stories.clone().and(&extra), training.seed));
        let streams = (with_extra, Stream::new(stories, training.seed));
        Ok(Self {
            config,
            threads,
            network: Network::new(config),
            parameters,
            vocabulary,
            streams,
            validation: Stream::new(validation, 0),
            teacher,
            progress,
            settings,
        })
    }

    /// Trains until the end, or until it gets no better, or `stop` says so between two steps.
    pub fn run(mut self, files: &Files, report: &mut Report, stop: &AtomicBool) -> Result<()> {
        let training = self.settings.training.clone();
        if self.progress.step == 0 {
            // From now on the folder is that of this training, and has its tokens.
            self.model().write(&files.model())?;
            self.save(&files.checkpoint())?;
        }
        let mut saved = Instant::now();
        while self.progress.step < training.steps && !self.gets_no_better() {
            let step = self.progress.step;
            if step > 0 && self.settings.phase(step) != self.settings.phase(step - 1) {
                // Losses on other lengths, or of rounded weights, do not compare with those before.
                self.progress.best = None;
                self.progress.without_better = 0;
            }
            let (sequences, length) = self.settings.sequences(step);
            let began = Instant::now();
            let (loss, norm) = self.step(step)?;
            self.progress.step += 1;
            let seconds = began.elapsed().as_secs_f64();
            self.progress.seconds += seconds;
            let last = self.progress.step == training.steps;
            let validate = last || self.progress.step.is_multiple_of(training.validate_every);
            let validation = validate.then(|| self.validate()).transpose()?;
            report.record(&Record {
                step: self.progress.step,
                loss,
                norm,
                rate: self.settings.rate(step),
                tokens_per_second: (sequences * length) as f64 / seconds,
                seconds: self.progress.seconds,
                validation,
            })?;
            if let Some(validation) = validation {
                if self.progress.best.is_none_or(|best| validation < best) {
                    self.progress.best = Some(validation);
                    self.progress.without_better = 0;
                    self.model().write(&files.model())?;
                } else {
                    self.progress.without_better += 1;
                }
            }
            let stopped = stop.load(Ordering::Relaxed);
            let ends = last || stopped || self.gets_no_better();
            if ends || saved.elapsed().as_secs_f64() > 60.0 * training.checkpoint_minutes {
                self.save(&files.checkpoint())?;
                saved = Instant::now();
            }
            if ends || validate {
                report.draw();
            }
            if stopped && !last {
                report.say("stopped: the same command goes on from here");
                break;
            }
        }
        if self.gets_no_better() {
            report.say(&format!("stopped: no better for {} validations", self.progress.without_better));
        }
        report.end(&self.progress);
        Ok(())
    }

    fn gets_no_better(&self) -> bool {
        let patience = self.settings.training.patience;
        patience > 0 && self.progress.without_better >= patience
    }

    fn save(&self, path: &Path) -> Result<()> {
        let (weights, memory) = (self.parameters.values(), self.parameters.memory()?);
        Checkpoint { progress: self.progress.clone(), weights, memory }.write(path)
    }

    /// The model as it is trained: with rounded weights, where these are what is trained.
    fn model(&self) -> Model {
        let tensors = network::tensors(&self.config).zip(self.parameters.tensors());
        let rounded = |(name, tensor)| values(fake_quant::rounded(tensor, name, self.network.fake_quant));
        Model {
            config: self.config,
            vocabulary: self.vocabulary.clone(),
            name: None,
            tensors: tensors.map(rounded).collect(),
        }
    }

    /// The sequences of a step.
    fn batch(&mut self, step: usize) -> Batch {
        let Training { steps, extra_until, .. } = self.settings.training;
        let without_extra = (steps as f64 * extra_until).ceil() as usize;
        let (stream, first) = match &mut self.streams {
            (None, stream) => (stream, 0),
            (Some(stream), _) if step < without_extra => (stream, 0),
            (Some(_), stream) => (stream, without_extra),
        };
        let tokens = |step| -> usize {
            let (sequences, length) = self.settings.sequences(step);
            sequences * length
        };
        let place: usize = (first..step).map(tokens).sum();
        let (sequences, length) = self.settings.sequences(step);
        Batch::read(stream, place as u64, sequences, length)
    }

    /// One update of the weights; returns the loss before it, in nats per token, and the length of its gradient.
    fn step(&mut self, step: usize) -> Result<(f64, f64)> {
        let batch = self.batch(step);
        let Training { dropout, seed, .. } = self.settings.training;
        self.network.fake_quant = self.settings.fake_quant(step);
        let (sequences, length) = self.settings.sequences(step);
        let workers = self.threads.min(sequences);
        let tensors = self.parameters.tensors();
        let parts = std::thread::scope(|scope| {
            let workers = (0..workers).map(|worker| {
                let [begin, end] = [worker, worker + 1].map(|worker| sequences * worker / workers * length);
                let (given, predicted) = (&batch.given[begin..end], &batch.predicted[begin..end]);
                let share = (end - begin) as f64 / batch.given.len() as f64;
                let random = fastrand::Rng::with_seed(seed ^ ((step as u64) << 8 | worker as u64));
                let dropout = Dropout { share: dropout, random };
                let (this, tensors) = (&*self, &tensors);
                scope.spawn(move || {
                    let (loss, gradients) =
                        this.gradients(tensors, (given, predicted), length, share, dropout);
                    (loss * share, gradients)
                })
            });
            let workers: Vec<_> = workers.collect();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("a worker does not panic"))
                .collect::<Vec<_>>()
        });
        let (losses, parts): (Vec<f64>, Vec<_>) = parts.into_iter().unzip();
        let mut parts = parts.into_iter();
        let mut gradients: Vec<Tensor<2>> = parts.next().expect("there is a worker");
        for part in parts {
            gradients = gradients.into_iter().zip(part).map(|(sum, part)| sum + part).collect();
        }
        let squares = gradients.iter().map(|gradient| gradient.clone().square().sum());
        let norm = Tensor::cat(squares.collect(), 0).sum().sqrt().into_scalar::<f32>();
        let norm = f64::from(norm);
        let clip = self.settings.training.clip;
        if norm > clip {
            gradients = gradients.into_iter().map(|gradient| gradient * (clip / norm)).collect();
        }
        let loss: f64 = losses.iter().sum();
        // Before the weights are spoiled: the checkpoint must stay one that can be gone on from.
        ensure!(loss.is_finite() && norm.is_finite(), "{}", diverged(loss, step));
        self.parameters.step(&gradients, self.settings.rate(step));
        Ok((loss, norm))
    }

    /// The loss of some sequences, and a share of its gradient.
    fn gradients(
        &self,
        tensors: &[Tensor<2>],
        (given, predicted): (&[u32], &[u32]),
        length: usize,
        share: f64,
        mut dropout: Dropout,
    ) -> (f64, Vec<Tensor<2>>) {
        let distillation = self.settings.training.distillation;
        // Tensors of its own, so that workers share no graph.
        let leaves: Vec<_> =
            tensors.iter().map(|tensor| Tensor::from_inner(tensor.clone()).require_grad()).collect();
        let logits = self.network.forward(&leaves, given, length, &mut dropout);
        let log_probabilities = network::log_probabilities(logits);
        let mut loss = network::cross_entropy(log_probabilities.clone(), predicted);
        if let Some((teacher, weights)) = &self.teacher {
            let logits = teacher.forward(weights, given, length, &mut Dropout::none());
            let divergence = network::divergence(log_probabilities, logits);
            loss = loss * (1.0 - distillation) + divergence * distillation;
        }
        let mut found = (loss.clone() * share).backward();
        let gradients =
            leaves.iter().map(|leaf| leaf.grad_remove(&mut found).expect("every tensor takes part"));
        (f64::from(loss.into_scalar::<f32>()), gradients.collect())
    }

    /// The mean loss on the validation text, in nats per token.
    fn validate(&mut self) -> Result<f64> {
        // Texts as long as those that it is trained with: longer ones it does not know yet.
        let (_, length) = self.settings.sequences(self.progress.step.saturating_sub(1));
        let tensors = self.parameters.tensors();
        let tokens = self.settings.training.validation_tokens.min(self.validation.tokens());
        let sequences = (tokens / length).max(1);
        let all = Batch::read(&mut self.validation, 0, sequences, length);
        let part = length * sequences.div_ceil(self.threads).min((4096 / length).max(1));
        let parts: Vec<_> = all.given.chunks(part).zip(all.predicted.chunks(part)).collect();
        let loss = |&(given, predicted): &(&[u32], &[u32])| {
            let logits = self.network.forward(&tensors, given, length, &mut Dropout::none());
            let loss = network::cross_entropy(network::log_probabilities(logits), predicted);
            f64::from(loss.into_scalar::<f32>()) * given.len() as f64
        };
        let count = self.threads.min(parts.len());
        let losses = std::thread::scope(|scope| {
            let workers = (0..count).map(|worker| {
                let (loss, parts) = (&loss, parts.iter().skip(worker).step_by(count));
                scope.spawn(move || parts.map(loss).sum::<f64>())
            });
            let workers: Vec<_> = workers.collect();
            workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).sum::<f64>()
        });
        let loss = losses / all.given.len() as f64;
        ensure!(loss.is_finite(), "{}", diverged(loss, self.progress.step));
        Ok(loss)
    }
}
