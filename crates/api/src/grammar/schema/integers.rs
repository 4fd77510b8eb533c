//! Integers within bounds, as digits.

use serde_json::{Map, Value};

use super::{SchemaError, refuse};

/// The keywords for bounds.
pub(super) const BOUNDS: [&str; 4] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];

/// The largest integer that is written, of 15 digits: every reader of JSON takes it exactly.
const MOST: i64 = 999_999_999_999_999;

/// The body of the rule for integers within a schema's bounds; `None` where it has none.
pub(super) fn body(
    members: &Map<String, Value>,
    place: &str,
) -> Result<Option<String>, SchemaError> {
    if !BOUNDS.iter().any(|key| members.contains_key(*key)) {
        return Ok(None);
    }
    let bound = |key: &str| match members.get(key) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => refuse(place, format!("has a '{key}' that is no number")),
        },
    };
    // Casts saturate, and what is beyond the largest is cut off.
    let least = |number: f64| number as i64;
    let mut low = -MOST;
    let mut high = MOST;
    if let Some(number) = bound("minimum")? {
        low = low.max(least(number.ceil()));
    }
    if let Some(number) = bound("exclusiveMinimum")? {
        low = low.max(least(number.floor()).saturating_add(1));
    }
    if let Some(number) = bound("maximum")? {
        high = high.min(least(number.floor()));
    }
    if let Some(number) = bound("exclusiveMaximum")? {
        high = high.min(least(number.ceil()).saturating_sub(1));
    }
    if low > high {
        return refuse(
            place,
            "has bounds between which there is no integer of up to 15 digits",
        );
    }
    let mut ways = Vec::new();
    if low < 0 {
        let (near, far) = ((-high).max(1), -low);
        ways.push(format!("\"-\" ({})", from_to(near as u64, far as u64)));
    }
    if high >= 0 {
        ways.push(from_to(low.max(0) as u64, high as u64));
    }
    Ok(Some(ways.join(" | ")))
}

/// The integers from `low` to `high`, by their number of digits.
fn from_to(low: u64, high: u64) -> String {
    let mut ways = Vec::new();
    let mut start = low;
    loop {
        let digits = start.to_string().len() as u32;
        let end = high.min(10_u64.pow(digits) - 1);
        ways.push(same_length(
            start.to_string().as_bytes(),
            end.to_string().as_bytes(),
        ));
        if end == high {
            return ways.join(" | ");
        }
        start = end + 1;
    }
}

/// Digits from `low` to `high`, of equal length.
fn same_length(low: &[u8], high: &[u8]) -> String {
    let (Some((&first, low_rest)), Some((&last, high_rest))) =
        (low.split_first(), high.split_first())
    else {
        return String::new();
    };
    let class = |first: u8, last: u8| match (first as char, last as char) {
        (first, last) if first == last => format!("[{first}]"),
        (first, last) => format!("[{first}-{last}]"),
    };
    let any = match low_rest.len() {
        0 => String::new(),
        rest => format!(" [0-9]{{{rest}}}"),
    };
    let lowest = low_rest.iter().all(|digit| *digit == b'0');
    let highest = high_rest.iter().all(|digit| *digit == b'9');
    if lowest && highest {
        return format!("{}{any}", class(first, last));
    }
    if first == last {
        let rest = same_length(low_rest, high_rest);
        return format!("{} ({rest})", class(first, first));
    }
    let mut ways = Vec::new();
    let mut between = (first, last);
    if !lowest {
        let rest = same_length(low_rest, &vec![b'9'; low_rest.len()]);
        ways.push(format!("{} ({rest})", class(first, first)));
        between.0 += 1;
    }
    if !highest {
        between.1 -= 1;
    }
    if between.0 <= between.1 {
        ways.push(format!("{}{any}", class(between.0, between.1)));
    }
    if !highest {
        let rest = same_length(&vec![b'0'; high_rest.len()], high_rest);
        ways.push(format!("{} ({rest})", class(last, last)));
    }
    ways.join(" | ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Whether a body of the kind that is written here matches a text: what is left of it after
    /// each way to match.
    fn matches(body: &str, text: &str) -> bool {
        rest_after(body, text).iter().any(|rest| rest.is_empty())
    }

    fn rest_after<'t>(body: &str, text: &'t str) -> Vec<&'t str> {
        let mut found = Vec::new();
        for way in split(body, " | ") {
            let mut texts = vec![text];
            for part in split(&way, " ") {
                texts = texts
                    .into_iter()
                    .flat_map(|text| step(&part, text))
                    .collect();
            }
            found.extend(texts);
        }
        found
    }

    fn step<'t>(part: &str, text: &'t str) -> Vec<&'t str> {
        if let Some(inner) = part
            .strip_prefix('(')
            .and_then(|part| part.strip_suffix(')'))
        {
            return rest_after(inner, text);
        }
        if part == "\"-\"" {
            return text.strip_prefix('-').into_iter().collect();
        }
        let (class, count) = part.strip_prefix('[').unwrap().split_once(']').unwrap();
        let count = count.trim_matches(['{', '}']).parse().unwrap_or(1);
        let (first, last) = class.split_once('-').unwrap_or((class, class));
        if text.len() < count {
            return Vec::new();
        }
        let (digits, rest) = text.split_at(count);
        let within =
            |digit: char| first.chars().all(|f| f <= digit) && last.chars().all(|l| digit <= l);
        if digits.chars().all(within) {
            vec![rest]
        } else {
            Vec::new()
        }
    }

    /// The parts of a body, those in brackets whole.
    fn split(body: &str, by: &str) -> Vec<String> {
        let (mut parts, mut depth) = (vec![String::new()], 0);
        let mut rest = body;
        while let Some(character) = rest.chars().next() {
            if depth == 0 && rest.starts_with(by) {
                parts.push(String::new());
                rest = &rest[by.len()..];
                continue;
            }
            depth += match character {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            parts.last_mut().unwrap().push(character);
            rest = &rest[character.len_utf8()..];
        }
        parts
    }

    fn of(schema: &Value) -> Result<String, SchemaError> {
        body(schema.as_object().unwrap(), "#").map(Option::unwrap_or_default)
    }

    proptest! {
        #[test]
        fn just_the_integers_between_come_out(
            a in -3000_i64..3000, b in -3000_i64..3000, probe in -4000_i64..4000,
            far in -MOST..MOST,
        ) {
            let (low, high) = (a.min(b), a.max(b));
            let text = of(&json!({"minimum": low, "maximum": high})).unwrap();
            for number in [probe, low, high, low - 1, high + 1, far] {
                prop_assert_eq!(
                    matches(&text, &number.to_string()),
                    (low..=high).contains(&number),
                    "{} in {}", number, text
                );
            }
            for malformed in ["-0", "00", "", "-", "007"] {
                prop_assert!(!matches(&text, malformed), "{}", text);
            }
            let above = of(&json!({"exclusiveMinimum": far})).unwrap();
            prop_assert!(matches(&above, &(far + 1).to_string()));
            prop_assert!(!matches(&above, &far.to_string()));
        }
    }

    #[test]
    fn bounds_need_not_be_integers_but_numbers() {
        let text = of(&json!({"minimum": 0.5, "exclusiveMaximum": 3.0})).unwrap();
        let within: Vec<i64> = (-5..9).filter(|n| matches(&text, &n.to_string())).collect();
        assert_eq!(within, [1, 2]);
        let error = of(&json!({"minimum": "1"})).unwrap_err().to_string();
        assert_eq!(error, "# has a 'minimum' that is no number");
        for empty in [
            json!({"minimum": 2, "maximum": 1}),
            json!({"exclusiveMinimum": 1, "exclusiveMaximum": 2}),
            json!({"minimum": 1e30}),
        ] {
            assert!(of(&empty).is_err(), "{empty}");
        }
        assert_eq!(of(&json!({"type": "integer"})).unwrap(), "");
    }
}
