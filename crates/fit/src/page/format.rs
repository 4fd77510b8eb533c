//! Numbers as people read them: memory in GiB, files in GB.

use crate::evidence::Estimate;
use crate::verdict::Tier;

const GIB: f64 = (1_u64 << 30) as f64;

/// Memory: `25.3 GiB`, `180 GiB`.
pub fn gib(bytes: u64) -> String {
    format!("{} GiB", short(bytes as f64 / GIB))
}

/// Memory without its unit, with one decimal: `25.3`.
pub fn gib_number(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / GIB)
}

/// Files and downloads: `110 GB`.
pub fn gb(bytes: u64) -> String {
    format!("{} GB", short(bytes as f64 / 1e9))
}

/// A share: `61 %`; with a decimal where rounding would hide that it is above a bound of a tier.
pub fn percent(share: f64) -> String {
    if share.is_finite() {
        crate::verdict::percent(share)
    } else {
        "–".into()
    }
}

/// An error or a small share: `6.9 %`, `22 %`, `1,259 %`.
pub fn fine_percent(share: f64) -> String {
    let value = share * 100.0;
    if !value.is_finite() {
        "–".into()
    } else if value == 0.0 || value.abs() >= 9.95 {
        format!("{} %", thousands(value.round() as i64))
    } else {
        format!("{value:.1} %")
    }
}

/// Three figures: `0.042`, `4.25`, `42.5`, `425`.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 99.95 {
        thousands(value.round() as i64)
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else if size >= 0.1 || size == 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// A rate or time in two figures, as the interval is wide: `0.42`, `4.2`, `42`, `420`.
pub fn brief(value: f64) -> String {
    if value >= 9.95 {
        thousands(value.round() as i64)
    } else if value >= 0.995 || value == 0.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// `18 (14–23)`.
pub fn interval(estimate: &Estimate) -> String {
    let Estimate { low, mid, high, .. } = *estimate;
    format!("{} ({}–{})", brief(mid), brief(low), brief(high))
}

/// `131,072`.
pub fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    if value < 0 {
        text.push('−');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 token`, `131,072 tokens`.
pub fn tokens(count: u32) -> String {
    let unit = if count == 1 { "token" } else { "tokens" };
    format!("{} {unit}", thousands(i64::from(count)))
}

/// Parameters: `8.0 B`, `1.0 T`.
pub fn params(count: u64) -> String {
    let billions = count as f64 / 1e9;
    if billions >= 999.5 {
        format!("{:.2} T", billions / 1e3)
    } else if billions >= 99.5 {
        format!("{billions:.0} B")
    } else {
        format!("{billions:.1} B")
    }
}

/// A tier's name for people.
pub fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Comfortable => "comfortable",
        Tier::Borderline => "borderline",
        Tier::NotPractical => "not practical",
        Tier::Unknown => "unknown",
    }
}

/// `1 model`, `2 models`.
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number as i64))
}

/// `a`, `a and b`, `a, b and c`.
pub fn and(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// A sentence's first letter made large, and a full stop at its end.
pub fn sentence(text: &str) -> String {
    let text = text.trim();
    // A name such as macOS or gpt-oss-20b keeps its small letter.
    let word = text.split(' ').next().unwrap_or_default();
    let named = word
        .chars()
        .skip(1)
        .any(|c| c.is_uppercase() || c.is_ascii_digit());
    let mut letters = text.chars();
    let first: String = match letters.next() {
        Some(c) if named => c.to_string(),
        Some(c) => c.to_uppercase().collect(),
        None => String::new(),
    };
    let end = if text.ends_with(['.', '!', '?', ':']) {
        ""
    } else {
        "."
    };
    format!("{first}{}{end}", letters.as_str())
}

/// `4× Mac mini` for `4x Mac mini`.
pub fn times(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.strip_suffix('x') {
        Some(count) if !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{count}×")
        }
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The text without what could move a cursor, change a colour or turn the reading direction:
/// names come from files that others wrote.
pub fn clean(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars()
        .map(|c| if harmful(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Units that stay on the line of their number.
const UNITS: [&str; 7] = ["%", "GiB", "GB", "GB/s", "ms", "s", "tok/s"];

/// The text with a space that does not break between a number and its unit.
pub(crate) fn glue(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split(' ') {
        let unit = word.trim_end_matches(|c: char| ".,;:)".contains(c));
        let number = out.ends_with(|c: char| c.is_ascii_digit());
        if !out.is_empty() {
            out.push(if number && UNITS.contains(&unit) {
                '\u{a0}'
            } else {
                ' '
            });
        }
        out.push_str(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(gib(180 << 30), "180 GiB");
        assert_eq!(gib((253 << 30) / 10), "25.3 GiB");
        assert_eq!(gb(110_000_000_000), "110 GB");
        assert_eq!(gb(999_600_000_000), "1,000 GB");
        assert_eq!(thousands(131_072), "131,072");
        assert_eq!(tokens(1), "1 token");
        assert_eq!(tokens(8192), "8,192 tokens");
        assert_eq!(thousands(-1_000), "−1,000");
        assert_eq!(percent(0.614), "61 %");
        assert_eq!(percent(0.8532), "85.3 %");
        assert_eq!(percent(1.004), "100.4 %");
        assert_eq!(percent(f64::INFINITY), "–");
        assert_eq!(fine_percent(0.0687), "6.9 %");
        assert_eq!(fine_percent(0.0996), "10 %");
        assert_eq!(fine_percent(12.59), "1,259 %");
        assert_eq!(brief(0.42), "0.42");
        assert_eq!(brief(9.96), "10");
        assert_eq!(params(1_026_000_000_000), "1.03 T");
        assert_eq!(and(&["a".into(), "b".into(), "c".into()]), "a, b and c");
        assert_eq!(sentence("a hop costs 1 ms"), "A hop costs 1 ms.");
        assert_eq!(sentence("macOS keeps it."), "macOS keeps it.");
        assert_eq!(
            times("4x Mac mini + 2x RTX 3090"),
            "4× Mac mini + 2× RTX 3090"
        );
        assert_eq!(times("max 0x10"), "max 0x10");
        assert_eq!(glue("10–15 %, in s"), "10–15\u{a0}%, in s");
    }

    #[test]
    fn nothing_reaches_a_terminal_that_could_steer_it() {
        assert_eq!(
            clean("a\u{1b}[31mb\n\u{202e}c"),
            "a\u{fffd}[31mb\u{fffd}\u{fffd}c"
        );
        assert_eq!(clean("Größe 4×"), "Größe 4×");
    }
}
