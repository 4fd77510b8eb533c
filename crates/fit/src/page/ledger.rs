//! What each node holds: as bars, as a table, and in short.

use super::doc::{Block, Cell, MemoryBar, MemoryBars, Table};
use super::format::{and, gb, gib, gib_number, percent, sentence};
use crate::memory::NodeLedger;
use crate::model::Format;

/// What each node holds, as bars.
pub(super) fn bars(caption: String, ledger: &[NodeLedger]) -> MemoryBars {
    let bars = ledger.iter().flat_map(|node| {
        node.pools.iter().map(|pool| MemoryBar {
            label: if node.pools.len() == 1 {
                node.node.clone()
            } else {
                format!("{}, {}", node.node, pool.pool)
            },
            memory_bytes: pool.memory_bytes,
            limit_bytes: pool.limit_bytes,
            effective_bytes: pool.effective_bytes,
            items: pool.items.clone(),
        })
    });
    MemoryBars {
        caption,
        bars: bars.collect(),
    }
}

/// What each node holds, as a table: one column for each item, in GiB.
pub(super) fn table(ledger: &[NodeLedger]) -> Table {
    let pools = || ledger.iter().flat_map(|node| &node.pools);
    let mut items: Vec<&str> = Vec::new();
    for item in pools().flat_map(|pool| &pool.items) {
        if !items.contains(&item.item.as_str()) {
            items.push(&item.item);
        }
    }
    let short = |item: &&str| {
        let short = item
            .trim_end_matches(" buffers")
            .trim_end_matches("' weights");
        format!(">{}", sentence(short).trim_end_matches('.'))
    };
    let heads: Vec<String> = items.iter().map(short).collect();
    let mut titles = vec!["Node", "Layers"];
    // The same memory everywhere needs no column.
    let several = ledger.iter().any(|node| node.pools.len() > 1);
    titles.extend(several.then_some("Memory of"));
    titles.extend(heads.iter().map(String::as_str));
    titles.push(">Sum");
    // With several memories a node there is no room for what the bars show as well.
    titles.extend((!several).then_some(">Of"));
    titles.extend(if several {
        [">Use", ">Disk, GB"]
    } else {
        ["Use", ">Disk"]
    });
    let mut table = Table::new(
        "What each node holds in GiB, and of how much effective memory",
        &titles,
    );
    for node in ledger {
        let layers = if node.layers.is_empty() {
            "none".to_owned()
        } else {
            format!("{}–{}", node.layers.start, node.layers.end - 1)
        };
        for (index, pool) in node.pools.iter().enumerate() {
            let own = |text: &str| Cell::text(if index == 0 { text } else { "" });
            let mut cells = vec![own(&node.node), own(&layers)];
            cells.extend(several.then(|| Cell::text(pool.pool.clone())));
            for item in &items {
                let bytes = pool.items.iter().find(|own| own.item == **item);
                cells.push(Cell::text(
                    bytes.map_or_else(|| "–".into(), |item| fine(item.bytes)),
                ));
            }
            cells.push(Cell::text(gib_number(pool.working_set_bytes)));
            if several {
                cells.push(Cell::text(percent(pool.utilization)));
            } else {
                cells.push(Cell::text(gib_number(pool.effective_bytes)));
                cells.push(Cell::share(Some(pool.utilization)));
            }
            let disk = gb(node.disk_bytes);
            cells.push(own(if several {
                disk.trim_end_matches(" GB")
            } else {
                &disk
            }));
            table.push(cells);
        }
    }
    let free = ledger.iter().filter(|node| node.pools.is_empty());
    let free: Vec<String> = free.map(|node| node.node.clone()).collect();
    if let (Some(last), false) = (table.rows.last_mut(), free.is_empty()) {
        let hold = if free.len() == 1 { "holds" } else { "hold" };
        last.note = format!("{} {hold} nothing.", and(&free));
    }
    table
}

/// What the column of disks is of, where not every runtime of the format keeps to it.
pub(super) fn disk_note(ledger: &[NodeLedger], format: Option<Format>) -> Option<Block> {
    let nodes = ledger.iter().filter(|node| !node.pools.is_empty()).count();
    let foreign = format.is_some_and(|format| format != Format::Gguf);
    (nodes > 1 && foreign).then(|| {
        Block::text(
            "Disk is the bytes of a node's own layers, which is all that Brigade fetches; other runtimes may fetch more: exo downloads the whole model to every node.",
        )
    })
}

/// GiB with two decimals below ten, however small: a column of them lines up.
fn fine(bytes: u64) -> String {
    match bytes as f64 / f64::from(1 << 30) {
        small if small < 0.1 => format!("{small:.2}"),
        _ => gib(bytes).trim_end_matches(" GiB").to_owned(),
    }
}

/// `node-1 holds 27.1 GiB` to its extremes: the least and most that a node with layers holds.
pub(super) fn spread(ledger: &[NodeLedger]) -> Option<(u64, u64)> {
    let held = ledger
        .iter()
        .map(|node| {
            node.pools
                .iter()
                .map(|pool| pool.working_set_bytes)
                .sum::<u64>()
        })
        .filter(|bytes| *bytes > 0);
    held.fold(None, |spread, bytes| match spread {
        None => Some((bytes, bytes)),
        Some((least, most)) => Some((bytes.min(least), bytes.max(most))),
    })
}
