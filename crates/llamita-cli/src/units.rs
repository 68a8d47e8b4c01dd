//! Numbers for people.

/// Bytes in decimal units, with three significant digits.
pub fn bytes(count: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.into_iter().find(|&(unit, _)| count as f64 >= unit) {
        Some((unit, name)) => format!("{} {name}", digits(count as f64 / unit)),
        None => format!("{count} B"),
    }
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
