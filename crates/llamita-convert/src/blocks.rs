//! ggml's blocks of integers with scales, and what they stand for.

use half::f16;
use llamita::weights::Blocks;

/// Turns whole blocks into as many numbers as they hold.
///
/// # Panics
/// If `blocks` is not a type of ggml, whose blocks hold both integers and scales.
pub fn decode(blocks: Blocks, bytes: &[u8], out: &mut [f32]) {
    match blocks {
        Blocks::Q4_0 => each(bytes, out, q4_0),
        Blocks::Q4_1 => each(bytes, out, q4_1),
        Blocks::Q5_0 => each(bytes, out, q5_0),
        Blocks::Q5_1 => each(bytes, out, q5_1),
        Blocks::Q8_0 => each(bytes, out, q8_0),
        Blocks::Q4K => each(bytes, out, q4_k),
        Blocks::Q6K => each(bytes, out, q6_k),
        Blocks::Llama2c { .. } => panic!("the scales of llama2.c's integers are not in blocks"),
    }
}

/// The integers and the scale, as bits, of whole blocks in which a weight is one integer times the scale:
/// those of Q8_0 and Q4_0, whose integers are from -8 to 7.
///
/// # Panics
/// If the weights of `blocks` are something else.
pub fn integers(blocks: Blocks, bytes: &[u8], values: &mut [i8], scales: &mut [u16]) {
    let blocks_out = values.as_chunks_mut::<32>().0.iter_mut().zip(scales);
    match blocks {
        Blocks::Q8_0 => {
            for ((values, scale), block) in blocks_out.zip(bytes.as_chunks::<34>().0) {
                *scale = u16::from_le_bytes([block[0], block[1]]);
                for (value, &byte) in values.iter_mut().zip(&block[2..]) {
                    *value = byte as i8;
                }
            }
        }
        Blocks::Q4_0 => {
            for ((values, scale), block) in blocks_out.zip(bytes.as_chunks::<18>().0) {
                *scale = u16::from_le_bytes([block[0], block[1]]);
                for (j, &byte) in block[2..].iter().enumerate() {
                    values[j] = (byte & 15) as i8 - 8;
                    values[16 + j] = (byte >> 4) as i8 - 8;
                }
            }
        }
        other => panic!("{} has no integers with one scale", other.name()),
    }
}

fn each<const BYTES: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: fn(&[u8; BYTES], &mut [f32; N]),
) {
    for (block, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        decode(block, out);
    }
}

/// The number of half precision at a byte of a block.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (out, &byte) in out.iter_mut().zip(&block[2..]) {
        *out = scale * f32::from(byte as i8);
    }
}

fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (j, &byte) in block[2..].iter().enumerate() {
        out[j] = scale * (f32::from(byte & 15) - 8.0);
        out[16 + j] = scale * (f32::from(byte >> 4) - 8.0);
    }
}

fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, least) = (half(block, 0), half(block, 2));
    for (j, &byte) in block[4..].iter().enumerate() {
        out[j] = scale * f32::from(byte & 15) + least;
        out[16 + j] = scale * f32::from(byte >> 4) + least;
    }
}

/// The fifth bits of a block of 32 stand together before the others.
fn fives(block: &[u8], at: usize) -> impl Iterator<Item = (usize, [u8; 2])> {
    let high = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let bit = move |j: usize| ((high >> j & 1) as u8) << 4;
    let low = &block[at + 4..at + 20];
    low.iter().enumerate().map(move |(j, &byte)| (j, [byte & 15 | bit(j), byte >> 4 | bit(16 + j)]))
}

fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (j, [first, second]) in fives(block, 2) {
        out[j] = scale * (f32::from(first) - 16.0);
        out[16 + j] = scale * (f32::from(second) - 16.0);
    }
}

fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, least) = (half(block, 0), half(block, 2));
    for (j, [first, second]) in fives(block, 4) {
        out[j] = scale * f32::from(first) + least;
        out[16 + j] = scale * f32::from(second) + least;
    }
}

/// Eight groups of 32; their scales and offsets have six bits, packed into twelve bytes.
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (scale, offset) = (half(block, 0), half(block, 2));
    let packed = &block[4..16];
    let six_bits = |group: usize| match group {
        0..4 => (packed[group] & 63, packed[group + 4] & 63),
        _ => (
            packed[group + 4] & 15 | packed[group - 4] >> 6 << 4,
            packed[group + 4] >> 4 | packed[group] >> 6 << 4,
        ),
    };
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (factor, least) = six_bits(group);
        let (scale, least) = (scale * f32::from(factor), offset * f32::from(least));
        // Two groups share 32 bytes: the low bits are the first's.
        let bytes = &block[16 + group / 2 * 32..][..32];
        for (out, &byte) in out.iter_mut().zip(bytes) {
            *out = scale * f32::from(byte >> (4 * (group % 2)) & 15) - least;
        }
    }
}

/// Sixteen groups of 16; of the six bits the low four and the high two stand apart.
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (factors, _) = rest.split_at(16);
    let scale = half(block, 208);
    for (i, out) in out.iter_mut().enumerate() {
        // Each half of the block has 64 bytes of low bits and 32 of high ones, used by four runs of 32.
        let (part, run, column) = (i / 128, i % 128 / 32, i % 32);
        let low = low[64 * part + run % 2 * 32 + column] >> (run / 2 * 4) & 15;
        let high = high[32 * part + column] >> (2 * run) & 3;
        let value = f32::from(low | high << 4) - 32.0;
        *out = scale * f32::from(factors[i / 16] as i8) * value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of random bytes, and what the Python package `gguf` 0.19 makes of them: the CRC-32 of all the
    /// numbers as bytes, and one of them.
    const CASES: [(Blocks, &str, u32, (usize, f32)); 7] = [
        (
            Blocks::Q8_0,
            "872462f90a945f5693c642276ad5ab2da7394551370e99b2d74c3427fa48d732a1df",
            0x4461_eadd,
            (16, 1.220_260_6),
        ),
        (Blocks::Q4_0, "66aa5e19a621f9bd0ccc21397c1ec795ca77", 0x9eb1_0476, (0, -0.299_926_76)),
        (Blocks::Q4_1, "032268b4f03e2fb81f223f4192c58efd5185f071", 0xfac7_c56e, (31, -0.193_199_16)),
        (Blocks::Q5_0, "ea236b236b82481bd9fe630dc3ce3be4ebcab72f45b3", 0x8e74_7dd4, (15, -0.200_943)),
        (Blocks::Q5_1, "3f26e7b35223479f21a557d8e5a703296dcb81db3f65cf9c", 0xf770_14df, (1, 0.265_426_64)),
        (
            Blocks::Q4K,
            "591af716851d3d24f4c0cf83fe4363f82f4759778955f6ced681cbea7179ced2c8f814a13472ff70ce36\
             9d8385452a44f318337f08cd1e614f235d3f83bc45fee9ee0403a79be118544441317c9311f85e0429b1\
             9f7ec0e156f65a3322e791b880ee995e3f0d307d2fbaf400693a179e0d027ed4e58be7a9ebc28a271d43\
             a78855638144eb6603f7b2725de11fe6ac2f",
            0x23f2_b431,
            (127, 1.668_597_2),
        ),
        (
            Blocks::Q6K,
            "88a6818274fec70a68b3e4bdc92b387987416c17ec90963ec766888ab4b80eba7c5cfd81121bea9cee18\
             10dfd5169faf26cd7b5c30c8aba44d972299e8c7b41b9a1d2b0f180600a974d63b6332202c998e82b252\
             2c49c4394c7d73265b6aaf61b288fbd0aecfa766616223611e764c93aa388ffabd0a6a6412b209971e2d\
             827076f7e49ab8fa197271be53a3442b128cdad72bad0f8aeef42a0b9a26d74fc78f2562b8701097a55b\
             5510543d27ed600de3200a6749307fd37899c118819af6674394c3f7aa5f93f32c810a37ca7bf101bc91",
            0x4644_9873,
            (128, 0.184_799_2),
        ),
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |c: u8| char::from(c).to_digit(16).unwrap() as u8;
        hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    #[test]
    fn blocks_stand_for_the_numbers_that_ggml_says() {
        for (blocks, hex, sum, (index, number)) in CASES {
            let (weights, size) = blocks.size();
            let block = bytes(hex);
            assert_eq!(block.len() as u64, size, "{}", blocks.name());
            // Two blocks, the second of which must not look at the first.
            let two = [vec![0; block.len()], block].concat();
            let mut out = vec![f32::NAN; 2 * weights as usize];
            decode(blocks, &two, &mut out);
            let (zeros, out) = out.split_at(weights as usize);
            assert!(zeros.iter().all(|&zero| zero == 0.0), "{}", blocks.name());
            assert_eq!(out[index], number, "{}", blocks.name());
            let all: Vec<u8> = out.iter().flat_map(|number| number.to_le_bytes()).collect();
            assert_eq!(crc32fast::hash(&all), sum, "{}: {out:?}", blocks.name());
        }
    }

    #[test]
    fn integers_times_scales_are_the_same_numbers() {
        for (blocks, hex, ..) in &CASES[..2] {
            let (block, mut values, mut scales, mut out) = (bytes(hex), [0; 32], [0], [0.0; 32]);
            integers(*blocks, &block, &mut values, &mut scales);
            decode(*blocks, &block, &mut out);
            let scale = f16::from_bits(scales[0]).to_f32();
            assert_eq!(values.map(|value| scale * f32::from(value)), out);
        }
    }
}
