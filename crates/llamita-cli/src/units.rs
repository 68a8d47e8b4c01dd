//! Numbers for people.

/// Bytes in decimal units, with three significant digits.
pub fn bytes(count: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.into_iter().find(|&(unit, _)| count as f64 >= unit) {
        Some((unit, name)) => format!("{} {name}", digits(count as f64 / unit)),
        None => format!("{count} B"),
    }
}

/// Bytes that a user has written: a number, or one with k for 1024, M or G.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.trim().char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text.trim()[..at], 1_u64 << 10),
        Some((at, 'M')) => (&text.trim()[..at], 1 << 20),
        Some((at, 'G')) => (&text.trim()[..at], 1 << 30),
        _ => (text.trim(), 1),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    // Far beyond what any machine has, and sums of a few do not overflow.
    let bytes = bytes.filter(|&bytes| bytes <= 1 << 50);
    bytes.ok_or_else(|| "expected bytes as a whole number, or with k, M or G, such as 320k".to_owned())
}

/// A number with three significant digits, or all of those before the point.
pub fn digits(number: f64) -> String {
    let decimals = match number.abs() {
        0.0 => 0,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

/// A count with its digits in groups of three.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with the name of what is counted.
pub fn counted(count: usize, name: &str) -> String {
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

/// How many per second; `None` where nothing was counted, or in no time.
pub fn rate(count: usize, seconds: f64) -> Option<f64> {
    (count > 0 && seconds > 0.0).then(|| count as f64 / seconds)
}

/// A rate that may be missing.
pub fn rate_text(rate: Option<f64>, unit: &str) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{} {unit}", digits(rate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        let cases =
            [("0", 0), ("512", 512), ("320k", 327_680), ("8M", 8 << 20), (" 2G ", 2 << 30), ("1K", 1024)];
        for (text, expected) in cases {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "k", "M8", "1.5M", "-1", "8MB", "99999999999G", "8 M", "é"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_short() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (1_056_540, "1.06 MB")];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(60_816_028), "60.8 MB");
        assert_eq!(bytes(123_456_789_012), "123 GB");
        assert_eq!(digits(8505.3), "8505");
        assert_eq!(digits(0.5), "0.50");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(37_867), "37,867");
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(counted(1, "thread"), "1 thread");
        assert_eq!(counted(2, "thread"), "2 threads");
        assert_eq!(rate(0, 1.0), None);
        assert_eq!(rate_text(rate(100, 0.5), "tok/s"), "200 tok/s");
    }
}
