//! The weights that are trained, and the optimizers that change them.

use anyhow::{Result, anyhow};
use burn::module::{Module, Param, ParamId};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, MuonConfig};
use burn::tensor::{Bytes, Device, Tensor};
use llamita::Config;
use llamita::weights::Tensor as Name;

use crate::network;
use crate::settings::{Optimizer, Training};

/// Decay of AdamW's means. The second is that of short runs, whose gradients change quickly.
const DECAY: [f32; 2] = [0.9, 0.95];

/// Embedding and norms, and the layers' matrices in two parts.
pub const SHARDS: usize = 3;

#[derive(Module, Debug)]
struct Weights {
    tensors: Vec<Param<Tensor<2>>>,
}

/// Weights that are optimized together.
struct Shard {
    /// Their places on the tape.
    places: Vec<usize>,
    weights: Weights,
    optimizer: ModuleOptimizer,
    /// The highest learning rate.
    rate: f64,
}

/// The weights of a model on a device.
pub struct Parameters {
    shards: Vec<Shard>,
}

impl Parameters {
    /// From values in tape order: (rows, columns) each.
    pub fn new(config: &Config, values: &[Vec<f32>], training: &Training, device: &Device) -> Self {
        let tensors: Vec<_> = network::tensors(config).collect();
        // The layers' matrices in two shards, each for a thread: Muon's steps are long.
        let kind = |place: usize| match tensors[place] {
            Name::Embedding | Name::Norm(_) => 0,
            Name::Matrix(_) => 1 + place % 2,
        };
        let shard = |index| {
            let places: Vec<_> = (0..tensors.len()).filter(|&place| kind(place) == index).collect();
            let tensors = places.iter().map(|&place| {
                let tensor = network::on_device(config, tensors[place], &values[place], device);
                // The optimizer knows its memory of a tensor by this number, also after a restart.
                let id = ParamId::from(1 + place as u64);
                Param::initialized(id, tensor.require_grad())
            });
            let weights = Weights { tensors: tensors.collect() };
            let (optimizer, rate) = match (index, training.optimizer) {
                (0, _) => (adamw(0.0), training.learning_rate),
                (_, Optimizer::AdamW) => (adamw(training.weight_decay), training.learning_rate),
                (_, Optimizer::Muon) => (muon(training.weight_decay), training.muon_rate),
            };
            Shard { places, weights, optimizer, rate }
        };
        Self { shards: (0..SHARDS).map(shard).collect() }
    }

    /// The tensors in tape order, without gradients.
    pub fn tensors(&self) -> Vec<Tensor<2>> {
        let all = self.shards.iter().flat_map(|shard| shard.places.iter().zip(&shard.weights.tensors));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable_by_key(|&(&place, _)| place);
        all.into_iter().map(|(_, tensor)| tensor.val().inner()).collect()
    }

    /// The numbers of all tensors, in tape order.
    pub fn values(&self) -> Vec<Vec<f32>> {
        self.tensors().into_iter().map(values).collect()
    }

    /// A step against the gradients, which are in tape order, at a share of the highest rates.
    pub fn step(&mut self, gradients: &[Tensor<2>], share: f64) {
        std::thread::scope(|scope| {
            for shard in &mut self.shards {
                scope.spawn(move || {
                    let mut found = GradientsParams::new();
                    for (&place, tensor) in shard.places.iter().zip(&shard.weights.tensors) {
                        found.register(tensor.id, gradients[place].clone());
                    }
                    let weights = std::mem::replace(&mut shard.weights, Weights { tensors: Vec::new() });
                    shard.weights = shard.optimizer.step(share * shard.rate, weights, found);
                });
            }
        });
    }

    /// What the optimizers remember.
    pub fn memory(&self) -> Result<Vec<Vec<u8>>> {
        let memory = |shard: &Shard| shard.optimizer.into_bytes().map(|bytes| bytes.to_vec());
        self.shards.iter().map(memory).collect::<Result<_, _>>().map_err(|error| anyhow!("{error}"))
    }

    /// Gives the optimizers what they remembered.
    pub fn remember(&mut self, memory: &[Vec<u8>]) -> Result<()> {
        for (shard, memory) in self.shards.iter_mut().zip(memory) {
            let optimizer = shard.optimizer.clone().from_bytes(Bytes::from_bytes_vec(memory.clone()));
            shard.optimizer = optimizer.map_err(|error| anyhow!("{error}"))?;
        }
        Ok(())
    }
}

/// The numbers of a tensor.
pub fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("tensors are of 32 bits")
}

fn adamw(weight_decay: f32) -> ModuleOptimizer {
    let [first, second] = DECAY;
    let config = AdamWConfig::new().with_beta_1(first).with_beta_2(second).with_epsilon(1e-8);
    config.with_weight_decay(weight_decay).init()
}

fn muon(weight_decay: f32) -> ModuleOptimizer {
    let momentum = MomentumConfig { momentum: 0.95, dampening: 0.0, nesterov: true };
    let decay = WeightDecayConfig::new(weight_decay);
    MuonConfig::new().with_momentum(momentum).with_weight_decay(Some(decay)).init()
}
