//! Memory and curves in characters.

use super::{pad, push};
use crate::page::doc::{Chart, MemoryBar, MemoryBars};
use crate::page::format::{brief, clean, gib, gib_number, percent, thousands};

/// Characters of a bar.
const LENGTH: usize = 60;
/// One for each item, in turn.
const FILLS: [char; 6] = ['█', '▓', '▒', '▚', '░', '▞'];

/// Each memory as a bar, on one scale, with its items.
pub(crate) fn memory(out: &mut String, memory: &MemoryBars) {
    push(out, &clean(&memory.caption));
    let scale = memory
        .bars
        .iter()
        .map(|bar| bar.memory_bytes)
        .max()
        .unwrap_or(0)
        .max(1);
    let labels = memory.bars.iter().map(|bar| bar.label.chars().count());
    let label = labels.max().unwrap_or(0);
    for bar in &memory.bars {
        let held: u64 = bar.items.iter().map(|item| item.bytes).sum();
        let sum = format!("{} of {}", gib_number(held), gib(bar.effective_bytes));
        let use_ = percent(held as f64 / bar.effective_bytes.max(1) as f64);
        let name = pad(&clean(&bar.label), label);
        push(
            out,
            &format!("  {name}  {}  {sum}, {use_}", drawn(bar, scale)),
        );
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
    for line in super::wrap::wrap(&text, super::WIDTH - 2) {
        push(out, &format!("  {}", line.replace('\u{a0}', " ")));
    }
}

fn fill(index: usize) -> char {
    FILLS[index % FILLS.len()]
}

fn drawn(bar: &MemoryBar, scale: u64) -> String {
    let at = |bytes: u64| (bytes as f64 / scale as f64 * LENGTH as f64).round() as usize;
    let mut cells: Vec<char> = vec![' '; LENGTH];
    for cell in cells.iter_mut().take(at(bar.memory_bytes)) {
        *cell = '·';
    }
    let mut start = 0;
    for (index, item) in bar.items.iter().enumerate() {
        let end = start + item.bytes;
        let (from, to) = (at(start).min(LENGTH), at(end).min(LENGTH));
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
pub(crate) fn chart(out: &mut String, chart: &Chart) {
    const WIDTH: usize = 40;
    push(out, &clean(&chart.caption));
    let top = chart
        .points
        .iter()
        .map(|point| point.mid)
        .fold(0.0, f64::max);
    for point in &chart.points {
        let blocks = if top > 0.0 {
            (point.mid / top * WIDTH as f64).round() as usize
        } else {
            0
        };
        let band = point.band.map_or_else(String::new, |(low, high)| {
            format!(" ({}–{})", brief(low), brief(high))
        });
        let bar = pad(&"█".repeat(blocks.min(WIDTH)), WIDTH);
        let x = thousands(point.x.round() as i64);
        push(
            out,
            &format!(
                "  {x:>9} {}  {bar}  {} {}{band}",
                chart.x,
                brief(point.mid),
                chart.y
            ),
        );
    }
}
