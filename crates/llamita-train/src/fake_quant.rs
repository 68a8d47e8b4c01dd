//! Weights as they will be once they are quantized, while they are still trained.

use burn::tensor::Tensor;
use llamita::weights::Tensor as Name;
use llamita_kernels::quantized::Quant;

use crate::settings::FakeQuant;

/// Columns that share a scale, as `llamita convert` has them unless told otherwise.
const GROUP: usize = 32;

/// A matrix rounded to integers and back. Its gradient is passed on as if it were not rounded (Bengio et al., 2013,
/// "Estimating or propagating gradients through stochastic neurons"); norms stay as they are.
pub fn rounded(weights: Tensor<2>, name: Name, quant: Option<FakeQuant>) -> Tensor<2> {
    let Some(quant) = quant else { return weights };
    let most = match (name, quant.body()) {
        (Name::Norm(_), _) => return weights,
        (Name::Embedding, _) | (_, Quant::Q8) => 127.0,
        (_, Quant::Q4) => 7.0,
    };
    let rounding = round(weights.clone().detach(), most) - weights.clone().detach();
    weights + rounding
}

/// To multiples of a scale for each group of columns; the last group of a row may be shorter.
fn round(weights: Tensor<2>, most: f32) -> Tensor<2> {
    let [rows, columns] = weights.dims();
    let padding = columns.next_multiple_of(GROUP) - columns;
    let padded = weights.pad((0, padding, 0, 0), 0.0);
    let groups = padded.reshape([rows, (columns + padding) / GROUP, GROUP]);
    let scales = (groups.clone().abs().max_dim(2) / most).clamp_min(1e-12);
    let rounded = (groups / scales.clone()).round() * scales;
    rounded.reshape([rows, columns + padding]).narrow(1, 0, columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use llamita::weights::{Matrix, Norm};

    fn weights(device: &Device) -> Tensor<2> {
        let values: Vec<f32> =
            (0..3 * 70).map(|i| (i as f32 * 0.7).sin() * (1.0 + i as f32 / 40.0)).collect();
        Tensor::from_data(TensorData::new(values, [3, 70]), device)
    }

    fn values(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    const W2: Name = Name::Matrix(Matrix::W2(0));

    #[test]
    fn weights_become_integers_times_a_scale() {
        let weights = weights(&Device::flex());
        let rounded = values(rounded(weights.clone(), W2, Some(FakeQuant::Q4)));
        for (before, after) in values(weights).chunks(70).zip(rounded.chunks(70)) {
            for (before, after) in before.chunks(32).zip(after.chunks(32)) {
                let scale = before.iter().fold(0.0_f32, |most, weight| most.max(weight.abs())) / 7.0;
                for (before, after) in before.iter().zip(after) {
                    let integer = after / scale;
                    assert!((integer - integer.round()).abs() < 1e-3 && integer.abs() < 7.01, "{integer}");
                    assert!((before - after).abs() < 0.501 * scale);
                }
            }
        }
    }

    #[test]
    fn the_embedding_keeps_eight_bits_and_norms_all() {
        let weights = weights(&Device::flex());
        let error = |name, quant| -> f32 {
            let rounded = values(rounded(weights.clone(), name, Some(quant)));
            rounded.iter().zip(values(weights.clone())).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let embedding = error(Name::Embedding, FakeQuant::Q4);
        assert!(embedding > 0.0 && embedding < 0.05 && error(W2, FakeQuant::Q8) < 0.05);
        assert!(error(W2, FakeQuant::Q4) > 0.2);
        assert_eq!(error(Name::Norm(Norm::Final), FakeQuant::Q4), 0.0);
    }

    #[test]
    fn the_gradient_is_passed_on() {
        let weights = weights(&Device::flex().autodiff()).require_grad();
        let loss = rounded(weights.clone(), W2, Some(FakeQuant::Q4)).mul_scalar(3.0).sum();
        let gradient = weights.grad(&loss.backward()).unwrap();
        assert!(values(gradient).iter().all(|&gradient| gradient == 3.0));
    }
}
