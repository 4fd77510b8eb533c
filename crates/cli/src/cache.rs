//! The cache folder, as this machine's user has set it up.

use anyhow::Context;
use brigade_node::{Cache, Pin, cache_dir};

use crate::hub::variable;

/// Where its limit stands, if it has one.
const LIMIT: &str = "BRIGADE_CACHE_LIMIT";

/// What a number of bytes is written as.
const UNITS: [(&str, u64); 9] = [
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("b", 1),
];

/// The cache with its limit: the one that is given, else that of the environment.
pub(crate) fn cache(limit_bytes: Option<u64>) -> anyhow::Result<Cache> {
    let limit_bytes = limit_bytes.map_or_else(limit, |bytes| Ok(Some(bytes)))?;
    let folder = cache_dir()?;
    Ok(Cache {
        pins: pins(&folder)?,
        folder,
        limit_bytes,
    })
}

/// What the models that this user's daemon shall load need.
#[cfg(unix)]
fn pins(folder: &std::path::Path) -> anyhow::Result<Vec<Pin>> {
    match brigade_node::home_dir() {
        Ok(home) => crate::commands::up::pins(&home, folder),
        Err(_) => Ok(Vec::new()),
    }
}

#[cfg(not(unix))]
fn pins(_: &std::path::Path) -> anyhow::Result<Vec<Pin>> {
    Ok(Vec::new())
}

fn limit() -> anyhow::Result<Option<u64>> {
    let Some(text) = variable(LIMIT) else {
        return Ok(None);
    };
    let text = text.to_string_lossy();
    let bytes = size(&text).map_err(anyhow::Error::msg);
    bytes.map(Some).with_context(|| format!("{LIMIT}={text}"))
}

/// Reads a size such as `200GB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|character: char| !character.is_ascii_digit() && character != '.');
    let (number, unit) = lower.split_at(digits.unwrap_or(lower.len()));
    let unit = UNITS.iter().find(|(name, _)| *name == unit.trim());
    let bytes = number.parse::<f64>().ok().zip(unit);
    match bytes.map(|(number, (_, unit))| number * *unit as f64) {
        Some(bytes) if (1.0..1e18).contains(&bytes) => Ok(bytes as u64),
        _ => Err("a size such as 200GB, 1.5TB or 500MiB is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("200GB", 200_000_000_000),
            ("1.5tb", 1_500_000_000_000),
            ("500 MiB", 500 << 20),
            ("70b", 70),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "200",
            "GB",
            "0GB",
            "-1GB",
            "1.2.3GB",
            "1XB",
            "nanGB",
            "9999999TB",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
