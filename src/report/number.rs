//! Numbers as text: exactly, for machines and for comparing bits; and shortly, for people.

/// A float in hexadecimal, as C's `%a` and Python's `float.hex` write it; `float.fromhex` reads it back exactly.
///
/// ```
/// use normative::report::hexadecimal;
/// assert_eq!(hexadecimal(3.0), "0x1.8p+1");
/// assert_eq!(hexadecimal(-0.1), "-0x1.999999999999ap-4");
/// ```
pub fn hexadecimal(value: f64) -> String {
    if !value.is_finite() {
        return decimal(value);
    }
    let bits = value.to_bits();
    let (biased, fraction) = ((bits >> 52) & 0x7ff, bits & ((1 << 52) - 1));
    let (lead, exponent) = match biased {
        0 if fraction == 0 => (0, 0),
        0 => (0, -1022),
        _ => (1, biased as i32 - 1023),
    };
    let sign = if value.is_sign_negative() { "-" } else { "" };
    let digits = format!("{fraction:013x}");
    let digits = digits.trim_end_matches('0');
    let point = if digits.is_empty() { "" } else { "." };
    format!("{sign}0x{lead}{point}{digits}p{exponent:+}")
}

/// The shortest decimal that reads back as the same binary64; `nan`, `inf` and `-inf` as in the protocol.
pub fn decimal(value: f64) -> String {
    if value.is_nan() {
        "nan".to_owned()
    } else if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
        format!("{value:?}")
    } else if value.is_finite() {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}

/// A multiple of a bound, to three digits; one below 1 never reads as 1.
pub fn multiple(ratio: f64) -> String {
    match ratio {
        _ if !ratio.is_finite() => "∞".to_owned(),
        0.0 => "0".to_owned(),
        ..0.0005 => format!("{ratio:.0e}"),
        ..1.0 => format!("{:.3}", (ratio * 1000.0).floor() / 1000.0),
        ..9.995 => format!("{ratio:.2}"),
        ..99.95 => format!("{ratio:.1}"),
        ..999.5 => format!("{ratio:.0}"),
        _ => format!("{ratio:.1e}"),
    }
}

/// `1 case`, `2 cases`.
pub fn count(number: usize, singular: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {singular}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `float.fromhex` does.
    fn from_hexadecimal(text: &str) -> f64 {
        let (sign, text) = text.strip_prefix('-').map_or((1.0, text), |text| (-1.0, text));
        let (significand, exponent) = text.strip_prefix("0x").unwrap().split_once('p').unwrap();
        let (lead, digits) = significand.split_once('.').unwrap_or((significand, ""));
        let units = u64::from_str_radix(&format!("{lead}{digits}"), 16).unwrap();
        let exponent = exponent.parse::<i32>().unwrap() - 4 * digits.len() as i32;
        sign * crate::arithmetic::format::scale(units as f64, exponent)
    }

    #[test]
    fn hexadecimal_floats_are_those_of_c() {
        for (value, text) in [
            (0.0, "0x0p+0"),
            (-0.0, "-0x0p+0"),
            (1.0, "0x1p+0"),
            (-1.5, "-0x1.8p+0"),
            (f64::MAX, "0x1.fffffffffffffp+1023"),
            (f64::MIN_POSITIVE, "0x1p-1022"),
            (f64::from_bits(1), "0x0.0000000000001p-1022"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(hexadecimal(value), text);
        }
    }

    #[test]
    fn hexadecimal_floats_read_back_exactly() {
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..100_000 {
            bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            for value in [f64::from_bits(bits), f64::from_bits(bits >> 12)] {
                if value.is_finite() {
                    assert_eq!(from_hexadecimal(&hexadecimal(value)).to_bits(), value.to_bits(), "{value:e}");
                    assert_eq!(decimal(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
                }
            }
        }
    }

    #[test]
    fn multiples_have_three_digits() {
        let texts = [0.0, 0.00012, 0.5, 0.9999, 3.96, 58.776, 458.872, 18967.959, f64::INFINITY].map(multiple);
        assert_eq!(texts, ["0", "1e-4", "0.500", "0.999", "3.96", "58.8", "459", "1.9e4", "∞"]);
    }
}
