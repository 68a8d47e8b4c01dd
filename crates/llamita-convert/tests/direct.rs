//! Files of integers that are run as they are, beside the same weights as floats.

use std::io::Cursor;

use llamita::weights::Format;
use llamita::{CacheFormat, Capacity, Engine, Kernels, Solo, State, Weights, state_len};
use llamita_convert::source::Checkpoint;
use llamita_convert::{Conversion, GgufFile, Plan, Rounding, Source};

#[path = "../../llamita/tests/common/mod.rs"]
mod common;

use common::{File, data};

/// Tokens of a story.
const STEPS: usize = 400;

/// What `llamita run` makes of a file that the engine cannot use in place, or another plan of it.
fn device(bytes: &[u8], plan: impl FnOnce(&dyn Source) -> Plan) -> File {
    let mut source = Checkpoint::new(bytes, Cursor::new(bytes)).unwrap();
    let plan = plan(&source);
    let file = GgufFile::device(&source, &plan);
    let mut out = Cursor::new(vec![0; file.len() as usize]);
    let mut conversion = Conversion { source: &mut source, quantizer: &mut Rounding, progress: &mut |_| () };
    file.write(&mut conversion, &mut out).unwrap();
    File::new(&out.into_inner())
}

/// Logits after each token of the story that the first model tells, of both.
fn stories([floats, integers]: [&File; 2], steps: usize) -> Vec<[Vec<f32>; 2]> {
    floats.with_weights(|floats| {
        integers.with_weights(|integers| {
            let config = *floats.config();
            let capacity = Capacity { context: steps, batch: 1, logits: 1, cache: CacheFormat::F32 };
            let mut memory = [(); 2].map(|()| vec![0.0; state_len(&config, capacity).unwrap()]);
            let mut engines = [floats, integers].into_iter().zip(&mut memory).map(|(weights, memory)| {
                let state = State::new(&config, capacity, memory).unwrap();
                Engine::new(weights, state, Solo, Kernels::detect())
            });
            let mut engines = [engines.next().unwrap(), engines.next().unwrap()];
            let mut token = 1;
            (0..steps)
                .map(|position| {
                    let logits = engines
                        .each_mut()
                        .map(|engine| engine.forward(&[token], position, 1).unwrap().to_vec());
                    token = best(&logits[0]).0;
                    logits
                })
                .collect()
        })
    })
}

/// The token that is most probable, and how far the next one is behind.
fn best(logits: &[f32]) -> (u32, f32) {
    let mut order: Vec<_> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    (order[0] as u32, logits[order[0]] - logits[order[1]])
}

#[test]
fn integers_tell_the_story_of_their_floats_wherever_it_is_no_close_call() {
    for name in ["stories260K-Q8_0.gguf", "stories260K-v2-q8.bin"] {
        let Some(bytes) = data::read(&format!("data/models/{name}")) else { return };
        let floats = device(&bytes, |source| Plan::floats(source.config(), Format::F32).unwrap());
        let integers = device(&bytes, |source| Plan::nearest(source).unwrap());
        let mut close = 0;
        for (position, [floats, integers]) in stories([&floats, &integers], STEPS).iter().enumerate() {
            let ((expected, ahead), (found, _)) = (best(floats), best(integers));
            // Inputs of eight bits move a logit by some hundredths; calls closer than that may go either way.
            assert!(found == expected || ahead < 0.1, "{name}: {found} at {position}, {ahead} ahead");
            close += usize::from(ahead < 0.1);
        }
        assert!(close < STEPS / 20, "{name}: {close} close calls");
    }
}
