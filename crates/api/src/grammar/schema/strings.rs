//! Strings of a length, a pattern or a format.

use serde_json::{Map, Value};

use super::{
    SchemaError,
    keywords::{count, repeat},
    pattern, refuse,
};

/// The body of the rule for a schema's strings; `None` where any will do.
pub(super) fn body(
    members: &Map<String, Value>,
    place: &str,
) -> Result<Option<String>, SchemaError> {
    let least = count(members, "minLength", place)?;
    let most = count(members, "maxLength", place)?;
    let mut inner = Vec::new();
    if let Some(pattern) = members.get("pattern") {
        let Some(pattern) = pattern.as_str() else {
            return refuse(place, "has a 'pattern' that is no string");
        };
        match pattern::body(pattern) {
            Ok(body) => inner.push(body),
            Err(reason) => {
                return refuse(
                    place,
                    format!("has a 'pattern' that cannot be kept: {reason}"),
                );
            }
        }
    }
    if let Some(format) = members.get("format") {
        match format.as_str().and_then(of_format) {
            Some(body) => inner.push(body),
            None => {
                return refuse(
                    place,
                    format!("has the format {format}, which is not supported"),
                );
            }
        }
    }
    if least.is_some() || most.is_some() {
        if most.is_some_and(|most| most < least.unwrap_or(0)) {
            return refuse(place, "has a 'maxLength' below its 'minLength'");
        }
        // One `char` is one code point, except for escaped pairs of surrogates.
        inner.push(format!("char{}", repeat(least.unwrap_or(0), most)));
    }
    match inner.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(format!("\"\\\"\" {one} \"\\\"\""))),
        _ => refuse(
            place,
            "has more than one of 'pattern', 'format' and a length, which is not supported",
        ),
    }
}

/// The 29th of February is left out: whether there is one depends on the year.
fn of_format(name: &str) -> Option<String> {
    const DATE: &str = r#"[0-9]{4} "-" (("0" [13578] | "10" | "12") "-" ("0" [1-9] | [12] [0-9] | "3" [01]) | ("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30") | "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8]))"#;
    const TIME: &str =
        r#"([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{3})? "Z""#;
    Some(match name {
        "date" => DATE.to_owned(),
        "time" => TIME.to_owned(),
        "date-time" => format!("{DATE} \"T\" {TIME}"),
        "uuid" => r#"hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}"#.to_owned(),
        _ => return None,
    })
}
