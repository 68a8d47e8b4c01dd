//! A look at the arithmetic before a model is trusted to it.

use llamita_kernels::quantized::{BLOCK_ROWS, Input, Layout, Quant, Quantized, QuantizedRows};
use llamita_kernels::{Kernels, Panel, Rows};

const COLUMNS: usize = 64;
const GROUP: usize = 32;
const GROUPS: usize = COLUMNS / GROUP;

/// Whether a few rows of each format have the products that the reference gives them, to the bit. The whole suite is
/// `llamita_conformance`.
pub(crate) fn agrees(kernels: Kernels) -> bool {
    [Quant::Q8, Quant::Q4].into_iter().all(|quant| product(kernels, quant) == product(Kernels::SCALAR, quant))
}

/// The product of made up rows and activations, as bits.
fn product(kernels: Kernels, quant: Quant) -> [u32; BLOCK_ROWS] {
    let layout = Layout { quant, rows: BLOCK_ROWS, columns: COLUMNS, group: GROUP };
    let mut bytes = [0; BLOCK_ROWS * (COLUMNS + 2 * GROUPS)];
    fill(layout, &mut bytes[..layout.len()]);
    let x: [f32; COLUMNS] = core::array::from_fn(|i| (i * i % 61) as f32 - 30.0);
    let (mut values, mut scales, mut sums) = ([0; COLUMNS], [0.0; GROUPS], [0; GROUPS]);
    kernels.quantize(&x, GROUP, &mut values, &mut scales, &mut sums);
    let quantized = Quantized { values: &values, scales: &scales, sums: &sums };
    let rows = QuantizedRows { quant, padded: COLUMNS, group: GROUP, bytes: &bytes[..layout.len()] };
    let mut out = [0.0; BLOCK_ROWS];
    kernels.matmul(Rows::Quantized(rows), Input { floats: &[], quantized }, Panel::new(&mut out, 1), false);
    out.map(f32::to_bits)
}

/// Makes up weights, each of them one that its format has.
pub(crate) fn fill(layout: Layout, bytes: &mut [u8]) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        // Odd, so it is not -128.
        *byte = (i * 151 + i / 7) as u8 | 1;
    }
    for row in 0..layout.blocks() * BLOCK_ROWS {
        for group in 0..layout.groups() {
            // In half precision, 1 to 2 or so.
            let scale = 0x3c00 + (row * 97 + group * 31) as u16 % 0x400;
            bytes[layout.scale_place(row, group)..][..2].copy_from_slice(&scale.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_agrees() {
        assert!(agrees(Kernels::detect()));
        let [q8, q4] = [Quant::Q8, Quant::Q4].map(|quant| product(Kernels::SCALAR, quant));
        assert!(q8 != q4 && q8.iter().all(|&bits| f32::from_bits(bits) != 0.0));
    }
}
