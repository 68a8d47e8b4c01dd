//! Numbers with a decimal point, as they are typed and told. The standard library's way from text to floats and back takes
//! 24 KB of flash.

use core::fmt;
use core::str::FromStr;

/// Digits behind the point; further ones are left out.
const DIGITS: usize = 6;
const ONE: u32 = 1_000_000;

/// A number from 0 to 4294, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal(u32);

/// This is no such number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoDecimal;

impl Decimal {
    pub const fn from_tenths(tenths: u32) -> Self {
        Self(tenths * (ONE / 10))
    }

    /// The float next to it, up to 16: numerator and denominator are floats then, and so only the division rounds.
    pub fn to_f32(self) -> f32 {
        self.0 as f32 / ONE as f32
    }
}

impl FromStr for Decimal {
    type Err = NoDecimal;

    fn from_str(text: &str) -> Result<Self, NoDecimal> {
        let (whole, behind) = text.split_once('.').unwrap_or((text, ""));
        let digits = || whole.bytes().chain(behind.bytes());
        if digits().next().is_none() || !digits().all(|digit| digit.is_ascii_digit()) {
            return Err(NoDecimal);
        }
        let behind = behind.bytes().chain([b'0'; DIGITS]).take(DIGITS);
        let mut millionths = 0_u32;
        for digit in whole.bytes().chain(behind) {
            let shifted = millionths.checked_mul(10).ok_or(NoDecimal)?;
            millionths = shifted.checked_add(u32::from(digit - b'0')).ok_or(NoDecimal)?;
        }
        Ok(Self(millionths))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, mut behind) = (self.0 / ONE, self.0 % ONE);
        write!(f, "{whole}")?;
        if behind > 0 {
            f.write_str(".")?;
        }
        while behind > 0 {
            behind *= 10;
            write!(f, "{}", behind / ONE)?;
            behind %= ONE;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn numbers_are_those_of_the_standard_library() {
        for text in
            ["0", "0.8", "0.9", ".5", "1.", "007", "0.000001", "0.123456", "15.999999", "1000", "0.05", "1.1"]
        {
            assert_eq!(text.parse::<Decimal>().unwrap().to_f32(), text.parse::<f32>().unwrap(), "{text}");
        }
        assert_eq!(Decimal::from_tenths(8).to_f32(), 0.8);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in
            ["", ".", "-1", "+1", "1e3", "1.2.3", "1,5", "NaN", "inf", "4295", "99999999999999999999", "é"]
        {
            assert_eq!(text.parse::<Decimal>(), Err(NoDecimal), "{text}");
        }
    }

    #[test]
    fn numbers_are_told_with_as_many_digits_as_they_have() {
        for (typed, told) in
            [("0.80", "0.8"), ("1", "1"), ("0.050", "0.05"), (".123456789", "0.123456"), ("10.", "10")]
        {
            assert_eq!(typed.parse::<Decimal>().unwrap().to_string(), told);
        }
    }
}
