//! Memory and curves in characters.

use super::wrap::{cut, wrap};
use super::{Sheet, pad, widest};
use crate::page::doc::{Chart, MemoryBar, MemoryBars};
use crate::page::format::{brief, clean, gib, gib_number, percent, thousands};

/// Characters of a bar at most, and at least.
const LENGTH: (usize, usize) = (60, 20);
/// Characters of a curve's bar at most, and at least.
const CURVE: (usize, usize) = (40, 10);
/// Characters of a bar's name at most.
const LABEL: usize = 28;
/// One for each item, in turn.
const FILLS: [char; 6] = ['█', '▓', '▒', '▚', '░', '▞'];

/// Each memory as a bar, on one scale, with its items.
pub(crate) fn memory(out: &mut Sheet, memory: &MemoryBars) {
    out.paragraph(&memory.caption, "");
    let scale = memory
        .bars
        .iter()
        .map(|bar| bar.memory_bytes)
        .max()
        .unwrap_or(0)
        .max(1);
    let sums: Vec<String> = memory
        .bars
        .iter()
        .map(|bar| {
            let held: u64 = bar.items.iter().map(|item| item.bytes).sum();
            let sum = format!("{} of {}", gib_number(held), gib(bar.effective_bytes));
            let use_ = percent(held as f64 / bar.effective_bytes.max(1) as f64);
            format!("{sum}, {use_}")
        })
        .collect();
    let left = (out.width - 6).saturating_sub(widest(sums.iter().map(String::as_str)));
    let most = left.saturating_sub(LENGTH.1).min(LABEL);
    let labels = memory.bars.iter().map(|bar| cut(&clean(&bar.label), most));
    let labels: Vec<String> = labels.collect();
    let label = widest(labels.iter().map(String::as_str));
    let length = left.saturating_sub(label).clamp(LENGTH.1, LENGTH.0);
    for (bar, (name, sum)) in memory.bars.iter().zip(labels.iter().zip(&sums)) {
        let name = pad(name, label);
        let drawn = drawn(bar, scale, length);
        out.push(&format!("  {name}  {drawn}  {sum}"));
    }
    let mut names: Vec<&str> = Vec::new();
    for item in memory.bars.iter().flat_map(|bar| &bar.items) {
        if !names.contains(&item.item.as_str()) {
            names.push(&item.item);
        }
    }
    let legend = names.iter().enumerate().map(|(index, name)| {
        let total: u64 = memory
            .bars
            .iter()
            .flat_map(|bar| &bar.items)
            .filter(|item| item.item == **name)
            .map(|item| item.bytes)
            .sum();
        // Words of one entry stay together.
        format!("{} {} {}", fill(index), clean(name), gib(total)).replace(' ', "\u{a0}")
    });
    let legend: Vec<String> = legend.collect();
    let text = format!("{} · │\u{a0}effective · ┃\u{a0}limit", legend.join(" · "));
    for line in wrap(&text, out.width - 2) {
        out.push(&format!("  {}", line.replace('\u{a0}', " ")));
    }
}

fn fill(index: usize) -> char {
    FILLS[index % FILLS.len()]
}

fn drawn(bar: &MemoryBar, scale: u64, length: usize) -> String {
    let at = |bytes: u64| (bytes as f64 / scale as f64 * length as f64).round() as usize;
    let mut cells: Vec<char> = vec![' '; length];
    for cell in cells.iter_mut().take(at(bar.memory_bytes)) {
        *cell = '·';
    }
    let mut start = 0;
    for (index, item) in bar.items.iter().enumerate() {
        let end = start + item.bytes;
        let (from, to) = (at(start).min(length), at(end).min(length));
        for cell in cells.iter_mut().take(to).skip(from) {
            *cell = fill(index);
        }
        start = end;
    }
    for (bytes, mark) in [(bar.effective_bytes, '│'), (bar.limit_bytes, '┃')] {
        if let Some(cell) = cells.get_mut(at(bytes).saturating_sub(1)) {
            *cell = mark;
        }
    }
    cells.into_iter().collect()
}

/// A curve as rows: where, how much, and the interval.
pub(crate) fn chart(out: &mut Sheet, chart: &Chart) {
    out.paragraph(&chart.caption, "");
    let top = chart
        .points
        .iter()
        .map(|point| point.mid)
        .fold(0.0, f64::max);
    let places: Vec<String> = chart
        .points
        .iter()
        .map(|point| {
            let x = thousands(point.x.round() as i64);
            let one = x == "1";
            let unit = if one {
                chart.x.trim_end_matches('s')
            } else {
                chart.x
            };
            format!("{x:>9} {unit:<0$}", chart.x.chars().count())
        })
        .collect();
    let rates: Vec<String> = chart
        .points
        .iter()
        .map(|point| {
            let band = point.band.map_or_else(String::new, |(low, high)| {
                format!(" ({}–{})", brief(low), brief(high))
            });
            format!("{} {}{band}", brief(point.mid), chart.y)
        })
        .collect();
    let wide = |texts: &[String]| widest(texts.iter().map(String::as_str));
    let left = (out.width - 6).saturating_sub(wide(&places) + wide(&rates));
    let length = left.clamp(CURVE.1, CURVE.0);
    for (point, (place, rate)) in chart.points.iter().zip(places.iter().zip(&rates)) {
        let blocks = if top > 0.0 {
            (point.mid / top * length as f64).round() as usize
        } else {
            0
        };
        let bar = pad(&"█".repeat(blocks.min(length)), length);
        out.push(&format!("  {place}  {bar}  {rate}"));
    }
}
