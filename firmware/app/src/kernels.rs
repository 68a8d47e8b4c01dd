//! How fast the kernels multiply, measured on the board itself.

use core::fmt;
use core::hint::black_box;

use llamita_kernels::quantized::{BLOCK_ROWS, Input, Layout, Quant, Quantized, QuantizedRows};
use llamita_kernels::{Kernels, Panel, Rows};
use llamita_storage::Sector;
use zerocopy::IntoBytes;

use crate::Machine;
use crate::check::fill;
use crate::port::Port;
use crate::text::Thousandths;

/// Rows and columns of the matrix, if there is memory for as many: those of a model of 15 million weights.
const SIDE: usize = 288;
/// The longest row, filled up to whole groups.
const PADDED: usize = 320;
/// The most groups of a row.
const GROUPS: usize = SIDE / 32;
const FORMATS: [(Quant, usize); 6] = [
    (Quant::Q8, SIDE),
    (Quant::Q8, 64),
    (Quant::Q8, 32),
    (Quant::Q4, SIDE),
    (Quant::Q4, 64),
    (Quant::Q4, 32),
];
/// Products that are timed together, after one that brings code and weights into the caches, if there are any.
const PRODUCTS: u64 = 16;

/// Where units want their operands.
#[repr(align(16))]
struct Aligned<T>(T);

/// A matrix times one token on one core.
struct Rate {
    arithmetic: &'static str,
    layout: Layout,
    ticks: u64,
    ticks_per_second: u64,
    cycles: Option<u32>,
}

/// Times the products of every format, with weights in this memory, and tells their rates.
pub(crate) fn tell<M: Machine>(port: &mut Port<'_, M>, memory: &mut [Sector]) {
    for (quant, group) in FORMATS {
        port.feed();
        let layout = Layout { quant, rows: SIDE, columns: SIDE, group };
        let bytes = memory.as_mut_bytes();
        let rows = SIDE.min(bytes.len() / layout.block_len() * BLOCK_ROWS);
        let layout = Layout { rows, ..layout };
        if rows == 0 {
            port.refuse(&format_args!(
                "a product takes {} bytes of memory, {} are lent",
                layout.block_len(),
                bytes.len()
            ));
            return;
        }
        let rate = measure::<M>(layout, &mut bytes[..layout.len()]);
        if port.json {
            port.put(format_args!("{{\"event\":\"kernels\",{}}}\n", Members(&rate)));
        } else {
            port.put(format_args!("{rate}\r\n"));
        }
        port.flush();
    }
}

/// Times products of made up weights, which have the speed of any others.
#[inline(never)]
fn measure<M: Machine>(layout: Layout, bytes: &mut [u8]) -> Rate {
    let kernels = Kernels::detect();
    fill(layout, bytes);
    let x: [f32; SIDE] = core::array::from_fn(|i| (i * i % 61) as f32 - 30.0);
    let (padded, groups) = (layout.padded(), layout.groups());
    let (mut values, mut scales, mut sums) = (Aligned([0; PADDED]), [0.0; GROUPS], [0; GROUPS]);
    let (values, scales, sums) = (&mut values.0[..padded], &mut scales[..groups], &mut sums[..groups]);
    kernels.quantize(&x, layout.group, values, scales, sums);
    let input = Input { floats: &[], quantized: Quantized { values, scales, sums } };
    let rows = QuantizedRows { quant: layout.quant, padded, group: layout.group, bytes };
    let mut out = Aligned([0.0; SIDE]);
    let mut product = || {
        let out = &mut out.0[..layout.rows];
        kernels.matmul(black_box(Rows::Quantized(rows)), input, Panel::new(out, 1), false);
        black_box(out);
    };

    product();
    let (ticks, cycles) = (M::ticks(), M::cycles());
    (0..PRODUCTS).for_each(|_| product());
    let cycles = M::cycles().zip(cycles).map(|(end, start)| end.wrapping_sub(start));
    let ticks = M::ticks().wrapping_sub(ticks).max(1);
    Rate { arithmetic: kernels.name(), layout, ticks, ticks_per_second: M::TICKS_PER_SECOND, cycles }
}

impl Rate {
    /// Multiplications, each with its addition; those of zeros that fill rows up are no use to anyone.
    fn count(&self) -> u64 {
        PRODUCTS * (self.layout.rows * self.layout.columns) as u64
    }

    /// Millions of them in a second.
    fn millions_per_second(&self) -> Thousandths {
        Thousandths(self.count().saturating_mul(self.ticks_per_second) / (1000 * self.ticks))
    }

    fn per_cycle(&self) -> Option<Thousandths> {
        self.cycles.map(|cycles| Thousandths(1000 * self.count() / u64::from(cycles.max(1))))
    }
}

/// For people.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Layout { quant, rows, columns, group } = self.layout;
        write!(f, "{} {}, {rows} rows of {columns}, ", self.arithmetic, name(quant))?;
        match group {
            SIDE => f.write_str("a scale a row")?,
            _ => write!(f, "groups of {group}")?,
        }
        write!(f, ": {} million weights a second", self.millions_per_second())?;
        self.per_cycle().map_or(Ok(()), |rate| write!(f, ", {rate} a cycle"))
    }
}

/// For programs: the members of an object.
struct Members<'r>(&'r Rate);

impl fmt::Display for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.0;
        let Layout { quant, rows, columns, group } = rate.layout;
        write!(
            f,
            "\"arithmetic\":\"{}\",\"quant\":\"{}\",\"rows\":{rows},\"columns\":{columns},\"group\":{group},\
             \"million_weights_per_second\":{},\"weights_per_cycle\":",
            rate.arithmetic,
            name(quant),
            rate.millions_per_second()
        )?;
        match rate.per_cycle() {
            Some(rate) => rate.fmt(f),
            None => f.write_str("null"),
        }
    }
}

const fn name(quant: Quant) -> &'static str {
    match quant {
        Quant::Q8 => "q8",
        Quant::Q4 => "q4",
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;
    use std::string::ToString;

    use super::*;

    #[test]
    fn rates_are_of_weights_that_count() {
        // Of the 320 columns of a row, which groups of 64 fill up, 288.
        let layout = Layout { quant: Quant::Q8, rows: 288, columns: 288, group: 64 };
        let count = 16 * 288 * 288;
        let mut rate = Rate {
            arithmetic: "pie",
            layout,
            ticks: count / 4,
            ticks_per_second: 1_000_000,
            cycles: Some(count as u32 / 8),
        };
        assert_eq!(
            rate.to_string(),
            "pie q8, 288 rows of 288, groups of 64: 4.000 million weights a second, 8.000 a cycle"
        );
        let json = |rate: &Rate| {
            serde_json::from_str::<serde_json::Value>(&format!("{{{}}}", Members(rate))).unwrap()
        };
        let told = json(&rate);
        assert_eq!((&told["quant"], &told["group"], &told["rows"]), (&"q8".into(), &64.into(), &288.into()));
        assert_eq!(told["million_weights_per_second"], 4.0);
        assert_eq!(told["weights_per_cycle"], 8.0);
        rate.layout.group = SIDE;
        rate.cycles = None;
        assert_eq!(
            rate.to_string(),
            "pie q8, 288 rows of 288, a scale a row: 4.000 million weights a second"
        );
        assert!(json(&rate)["weights_per_cycle"].is_null());
    }
}
