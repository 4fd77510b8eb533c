//! Shapes as people type them: `rtt=0.3ms,bw=40gbit,jitter=0.05ms`.

use std::time::Duration;

use super::LinkShape;

/// The longest time of a link.
const LONGEST: Duration = Duration::from_secs(10);

/// The slowest and the fastest link, in bits a second.
const BANDWIDTHS: std::ops::RangeInclusive<f64> = 1e3..=1e13;

/// Why a text is no shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadShape {
    /// Another word than the three.
    #[error("'{0}' says nothing of a link: write rtt=0.3ms, bw=40gbit or jitter=0.05ms")]
    Word(String),
    /// No time.
    #[error("'{0}' is no time from 0 to 10 s: write 0.3ms, 300us or 1s")]
    Time(String),
    /// No bandwidth.
    #[error("'{0}' is no bandwidth: write 40gbit, 100mbit or 5GB/s")]
    Bandwidth(String),
    /// More jitter than there is time.
    #[error(
        "a jitter of more than half the round trip would let bytes arrive before they are sent"
    )]
    Jitter,
}

impl LinkShape {
    /// The same with what a text says otherwise.
    pub fn with(mut self, text: &str) -> Result<Self, BadShape> {
        for part in text.split(',').map(str::trim) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim();
            match key.trim() {
                "rtt" => self.rtt = time(value)?,
                "jitter" => self.jitter = time(value)?,
                "bw" => self.bandwidth_bit_s = Some(bandwidth(value)?),
                _ => return Err(BadShape::Word(part.to_owned())),
            }
        }
        if self.jitter * 2 > self.rtt {
            return Err(BadShape::Jitter);
        }
        Ok(self)
    }
}

/// A number that is not negative, and what stands behind it.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

fn time(text: &str) -> Result<Duration, BadShape> {
    let bad = || BadShape::Time(text.to_owned());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (number, unit) = number(text).ok_or_else(bad)?;
    let unit = match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err(bad()),
    };
    let time = Duration::try_from_secs_f64(number * unit).map_err(|_| bad())?;
    if time > LONGEST {
        return Err(bad());
    }
    Ok(time)
}

/// Bits by `gbit`, `gbit/s`, `gbps` and `Gb/s`, bytes by `GB/s`: a large B alone is a byte.
fn bandwidth(text: &str) -> Result<f64, BadShape> {
    let bad = || BadShape::Bandwidth(text.to_owned());
    let (number, unit) = number(text).ok_or_else(bad)?;
    let unit = unit
        .strip_suffix("/s")
        .or(unit.strip_suffix("ps"))
        .unwrap_or(unit);
    let (prefix, unit) = match unit.chars().next().map(|c| c.to_ascii_lowercase()) {
        Some('k') => (1e3, &unit[1..]),
        Some('m') => (1e6, &unit[1..]),
        Some('g') => (1e9, &unit[1..]),
        _ => (1.0, unit),
    };
    let bits = match unit {
        "B" => 8.0,
        "b" => 1.0,
        other if other.eq_ignore_ascii_case("bit") => 1.0,
        _ => return Err(bad()),
    };
    let rate = number * prefix * bits;
    if !BANDWIDTHS.contains(&rate) {
        return Err(bad());
    }
    Ok(rate)
}
