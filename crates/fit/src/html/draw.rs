//! Small drawings: memory as stacked bars, rates as a line with its interval.

use std::fmt::Write;

use serde::Deserialize;

use super::escape;
use crate::page::format::{brief, clean, gib, gib_number, percent, thousands};

/// [`MemoryBars`](crate::page::doc::MemoryBars) as a template hands them over.
#[derive(Debug, Deserialize)]
pub(super) struct Bars {
    bars: Vec<Bar>,
}

#[derive(Debug, Deserialize)]
struct Bar {
    label: String,
    memory_bytes: u64,
    limit_bytes: u64,
    effective_bytes: u64,
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    item: String,
    bytes: u64,
}

/// [`Chart`](crate::page::doc::Chart) as a template hands it over.
#[derive(Debug, Deserialize)]
pub(super) struct Lines {
    caption: String,
    x: String,
    y: String,
    points: Vec<Point>,
}

#[derive(Debug, Deserialize)]
struct Point {
    x: f64,
    mid: f64,
    band: Option<(f64, f64)>,
}

/// Colours of items, in turn.
const FILLS: usize = 6;

/// Each memory as a bar, all on one scale, with a key.
pub(super) fn memory(bars: &Bars) -> String {
    let mut out = String::from("<div class=\"mem\">");
    let scale = bars
        .bars
        .iter()
        .map(|bar| bar.memory_bytes)
        .max()
        .unwrap_or(0)
        .max(1) as f64;
    let at = |bytes: u64| bytes as f64 / scale * 100.0;
    let names = names(bars);
    for bar in &bars.bars {
        let held: u64 = bar.items.iter().map(|item| item.bytes).sum();
        let label = clean(&bar.label);
        out.push_str("<div class=bars><span>");
        escape(&mut out, &label);
        // The figure's words and the table after it say what the bar shows.
        out.push_str(
            "</span><svg viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
        );
        let _ = write!(
            out,
            "<rect class=\"room\" width=\"{:.1}\" height=\"8\"/>",
            at(bar.memory_bytes)
        );
        let mut start = 0.0;
        for item in &bar.items {
            let width = at(item.bytes);
            let fill = names
                .iter()
                .position(|name| *name == item.item)
                .unwrap_or(0)
                % FILLS;
            let _ = write!(
                out,
                "<rect class=f{fill} x={start:.1} width={width:.1} height=8 />"
            );
            start += width;
        }
        for (bytes, class) in [(bar.effective_bytes, "lim dash"), (bar.limit_bytes, "lim")] {
            let x = at(bytes);
            let _ = write!(out, "<path class=\"{class}\" d=\"M{x:.1} -1V9\"/>");
        }
        let _ = write!(
            out,
            "</svg><span class=s>{} of {}, {}</span></div>",
            gib_number(held),
            gib(bar.effective_bytes),
            percent(held as f64 / bar.effective_bytes.max(1) as f64)
        );
    }
    out.push_str("</div><ul class=\"key\">");
    for (index, name) in names.iter().enumerate() {
        let items = bars.bars.iter().flat_map(|bar| &bar.items);
        let total: u64 = items
            .filter(|item| item.item == *name)
            .map(|item| item.bytes)
            .sum();
        let fill = index % FILLS;
        let _ = write!(
            out,
            "<li><svg viewBox=\"0 0 8 8\" aria-hidden=\"true\"><rect class=\"f{fill}\" width=\"8\" height=\"8\" rx=\"1.5\"/></svg>"
        );
        escape(&mut out, &format!("{} {}", clean(name), gib(total)));
        out.push_str("</li>");
    }
    out.push_str("<li><svg viewBox=\"0 0 8 8\" aria-hidden=\"true\"><path class=\"lim dash\" d=\"M4 0V8\"/></svg>effective</li><li><svg viewBox=\"0 0 8 8\" aria-hidden=\"true\"><path class=\"lim\" d=\"M4 0V8\"/></svg>limit</li></ul>");
    out
}

/// What the bars hold, each once.
fn names(bars: &Bars) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for item in bars.bars.iter().flat_map(|bar| &bar.items) {
        if !names.contains(&item.item.as_str()) {
            names.push(&item.item);
        }
    }
    names
}

const LEFT: f64 = 46.0;
const RIGHT: f64 = 600.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 196.0;

/// A line over an axis that doubles, with its interval as a band.
pub(super) fn chart(lines: &Lines) -> String {
    let (Some(first), Some(last)) = (lines.points.first(), lines.points.last()) else {
        return String::new();
    };
    let most = |point: &Point| {
        point
            .band
            .map_or(point.mid, |(_, high)| high.max(point.mid))
    };
    let top = nice(lines.points.iter().map(most).fold(0.0, f64::max));
    let span = (last.x / first.x).log2().max(1e-9);
    let x = |value: f64| LEFT + (value / first.x).log2() / span * (RIGHT - LEFT - 20.0) + 10.0;
    let y = |value: f64| BOTTOM - value / top * (BOTTOM - TOP);
    let mut out = String::from("<svg viewBox=\"0 0 610 236\" role=\"img\" aria-label=\"");
    let words: Vec<String> = lines
        .points
        .iter()
        .map(|point| {
            format!(
                "{} {}: {}",
                thousands(point.x as i64),
                lines.x,
                brief(point.mid)
            )
        })
        .collect();
    escape(
        &mut out,
        &format!(
            "{}. {} {}",
            clean(&lines.caption),
            words.join(", "),
            lines.y
        ),
    );
    out.push_str("\">");
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let at = y(value);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            if step == 0 { "0".into() } else { brief(value) }
        );
    }
    let bands: Vec<(f64, f64, f64)> = lines
        .points
        .iter()
        .filter_map(|point| point.band.map(|(low, high)| (x(point.x), y(low), y(high))))
        .collect();
    if bands.len() > 1 {
        let upper = bands.iter().map(|(x, _, high)| format!("{x:.1} {high:.1}"));
        let lower = bands
            .iter()
            .rev()
            .map(|(x, low, _)| format!("{x:.1} {low:.1}"));
        let points: Vec<String> = upper.chain(lower).collect();
        let _ = write!(out, "<path class=\"band\" d=\"M{}Z\"/>", points.join("L"));
    }
    let points: Vec<String> = lines
        .points
        .iter()
        .map(|point| format!("{:.1} {:.1}", x(point.x), y(point.mid)))
        .collect();
    let _ = write!(out, "<path class=\"line\" d=\"M{}\"/>", points.join("L"));
    for point in &lines.points {
        let (at, height) = (x(point.x), y(point.mid));
        let _ = write!(
            out,
            "<circle class=\"dot\" cx=\"{at:.1}\" cy=\"{height:.1}\" r=\"3.5\"/><text class=\"ink\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text><text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            height - 9.0,
            brief(point.mid),
            BOTTOM + 18.0,
            axis(point.x)
        );
    }
    let _ = write!(
        out,
        "<text x=\"{RIGHT}\" y=\"{:.0}\" text-anchor=\"end\">",
        BOTTOM + 36.0
    );
    escape(&mut out, &lines.x);
    let _ = write!(
        out,
        "</text><text x=\"{:.0}\" y=\"10\" text-anchor=\"end\">",
        LEFT - 8.0
    );
    escape(&mut out, &lines.y);
    out.push_str("</text></svg>");
    out
}

/// `8K` for 8,192.
fn axis(value: f64) -> String {
    let whole = value.round() as u64;
    if whole >= 1_024 && whole.is_multiple_of(1_024) {
        format!("{}K", whole / 1_024)
    } else {
        thousands(whole as i64)
    }
}

/// The next of 1, 2, 4, 6, 8 times a power of ten, so that quarters read well.
fn nice(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    let step = steps.into_iter().find(|step| step * power >= value);
    step.unwrap_or(10.0) * power
}
