//! The two orders of a head's rows in the query and key projections.
//!
//! Rope rotates pairs of elements. llama2.c and GGUF have the elements of a pair side by side; Hugging Face
//! has the first elements of all pairs and then the second ones.

/// Where Hugging Face has the row that is `row` with pairs side by side.
pub const fn to_half_split(row: usize, head_size: usize) -> usize {
    let (head, i) = (row / head_size, row % head_size);
    head * head_size + i % 2 * (head_size / 2) + i / 2
}

/// Where pairs are side by side, the row that is `row` for Hugging Face.
pub const fn from_half_split(row: usize, head_size: usize) -> usize {
    let (head, i) = (row / head_size, row % head_size);
    let half = head_size / 2;
    head * head_size + i % half * 2 + i / half
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: usize = 8;

    fn angle(pair: usize, position: f64) -> f64 {
        position * 10000_f64.powf(-(2.0 * pair as f64) / HEAD as f64)
    }

    fn rotate(a: &mut [f64], first: usize, second: usize, angle: f64) {
        let (x, y) = (a[first], a[second]);
        a[first] = x * angle.cos() - y * angle.sin();
        a[second] = x * angle.sin() + y * angle.cos();
    }

    /// Rope as llama2.c defines it: pair i is elements 2i and 2i + 1.
    fn interleaved(mut head: Vec<f64>, position: f64) -> Vec<f64> {
        (0..HEAD / 2).for_each(|i| rotate(&mut head, 2 * i, 2 * i + 1, angle(i, position)));
        head
    }

    /// Rope as Hugging Face defines it: pair i is elements i and i + half.
    fn half_split(mut head: Vec<f64>, position: f64) -> Vec<f64> {
        (0..HEAD / 2).for_each(|i| rotate(&mut head, i, i + HEAD / 2, angle(i, position)));
        head
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn both_orders_give_the_same_attention() {
        // Queries and keys of two heads in the order of Hugging Face.
        let rows = |seed: f64| (0..2 * HEAD).map(|i| (seed + 1.7 * i as f64).sin()).collect::<Vec<_>>();
        let (q, k) = (rows(0.3), rows(2.9));
        let read = |rows: &[f64]| (0..2 * HEAD).map(|row| rows[to_half_split(row, HEAD)]).collect::<Vec<_>>();
        let (q_read, k_read) = (read(&q), read(&k));
        for head in [0..HEAD, HEAD..2 * HEAD] {
            let score = |rope: fn(Vec<f64>, f64) -> Vec<f64>, q: &[f64], k: &[f64]| {
                dot(&rope(q[head.clone()].to_vec(), 11.0), &rope(k[head.clone()].to_vec(), 4.0))
            };
            let theirs = score(half_split, &q, &k);
            let ours = score(interleaved, &q_read, &k_read);
            assert!((theirs - ours).abs() < 1e-12, "{theirs} and {ours}");
            // Without a change of order it is another model.
            assert!((theirs - score(interleaved, &q, &k)).abs() > 1e-3);
        }
        let written: Vec<_> = (0..2 * HEAD).map(|row| q_read[from_half_split(row, HEAD)]).collect();
        assert_eq!(written, q);
    }
}
