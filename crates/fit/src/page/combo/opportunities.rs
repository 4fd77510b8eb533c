//! Which measurements would tell most: where the model is least sure, and what it cannot know.

use super::picks::Picks;
use super::{Opportunity, SplitCase};
use crate::FitError;
use crate::cluster::{Cluster, Node};
use crate::effective;
use crate::evidence::{Estimate, Evidence};
use crate::page::format::{brief, gb, gib, percent, tokens};
use crate::page::words;
use crate::verdict::{Split, Tier, Verdict, assess};

/// The measurements, the most telling first.
pub(super) fn find(picks: &Picks, splits: &[SplitCase]) -> Result<Vec<Opportunity>, FitError> {
    let mut found = Vec::new();
    if picks.cluster.nodes.len() > 1 {
        found.extend(overhead(picks, splits)?);
        found.extend(hop(picks, splits));
        found.extend(tensor(splits));
        found.extend(own_cost(picks));
    }
    found.extend(widest(picks));
    found.extend(edge(picks));
    Ok(found)
}

/// What splitting costs a model that one larger machine holds.
fn overhead(picks: &Picks, splits: &[SplitCase]) -> Result<Option<Opportunity>, FitError> {
    let Some(verdict) = picks.on_one_node() else {
        return Ok(None);
    };
    let Some(case) = splits.iter().find(|case| case.id == verdict.id) else {
        return Ok(None);
    };
    let Some((one, all, way)) = case.one_and_all() else {
        return Ok(None);
    };
    let mut expected = format!(
        "{} tok/s on one node, {} by a {way}: {} of one node's speed",
        brief(one),
        brief(all),
        percent(all / one)
    );
    let mut against = String::new();
    if let Some((name, rate)) = larger(picks, verdict)? {
        expected = format!("{expected}; {} on {name}", words::rate(&rate));
        against = format!(", against a single {name}");
    }
    Ok(Some(Opportunity {
        measure: format!(
            "{} at {} ({}) over all {} nodes{against}",
            verdict.name,
            verdict.quant,
            gb(verdict.weights_bytes),
            picks.cluster.nodes.len()
        ),
        expected,
        tells: "what the cluster costs where memory is no reason to split: the link's latency and the software of a hop, apart from memory bandwidth".into(),
    }))
}

/// The machine of the same family with the fastest memory that holds the model, and its speed.
fn larger(picks: &Picks, verdict: &Verdict) -> Result<Option<(String, Estimate)>, FitError> {
    let family = |node: &Node| node.machine.pools.first().map(|pool| pool.family.clone());
    let own = picks.cluster.nodes.first().and_then(family);
    let rate = |machine: &crate::machine::Machine| {
        machine
            .pools
            .first()
            .and_then(|pool| pool.bandwidth_gb_s)
            .unwrap_or(0.0)
    };
    let most = picks
        .catalog
        .machines
        .iter()
        .map(|sold| &sold.machine)
        .filter(|machine| machine.pools.first().map(|pool| pool.family.clone()) == own)
        .filter(|machine| {
            machine
                .pools
                .iter()
                .any(|pool| pool.limit_bytes > verdict.weights_bytes)
        })
        .max_by(|a, b| {
            rate(a)
                .total_cmp(&rate(b))
                .then(b.memory_bytes().cmp(&a.memory_bytes()))
        });
    let model = picks
        .catalog
        .models
        .iter()
        .find(|model| model.id == verdict.id);
    let (Some(machine), Some(model)) = (most, model) else {
        return Ok(None);
    };
    let cluster = Cluster::alone(machine.clone());
    let there = assess(model, &cluster, picks.ask, picks.speed)?;
    Ok(there.decode_tok_s.map(|rate| (machine.name.clone(), rate)))
}

/// What a hop costs, where the least else costs time.
fn hop(picks: &Picks, splits: &[SplitCase]) -> Option<Opportunity> {
    let verdict = picks.lightest()?;
    let case = splits.iter().find(|case| case.id == verdict.id)?;
    let (one, all, way) = case.one_and_all()?;
    Some(Opportunity {
        measure: format!(
            "{} at {}, one node against a {way}",
            verdict.name, verdict.quant
        ),
        expected: format!(
            "{} and {} tok/s: {} ms a token for the hops and uneven stages",
            brief(one),
            brief(all),
            brief(1e3 / all - 1e3 / one)
        ),
        tells: "the cost of a hop itself: few weights a token leave little else in the time".into(),
    })
}

/// Tensor parallel against a pipeline, where links allow it.
fn tensor(splits: &[SplitCase]) -> Option<Opportunity> {
    let (case, way) = splits.iter().find_map(|case| {
        let mut ways = case.alternatives.iter().rev();
        let way = ways.find(|way| way.split == Split::Tensor && way.fits)?;
        Some((case, way))
    })?;
    let one = case
        .alternatives
        .iter()
        .find(|other| other.fits && other.decode_tok_s.is_some() && other.split != Split::Tensor)?;
    Some(Opportunity {
        measure: format!(
            "{}: {} with {}",
            case.name,
            way.name,
            way.runtimes.join(" or ")
        ),
        expected: match (way.decode_tok_s, one.decode_tok_s) {
            (Some(rate), _) => words::rate(&rate),
            (None, Some(rate)) => format!(
                "unknown: no published figure for these machines; {} with {}",
                words::rate(&rate),
                one.name
            ),
            (None, None) => "unknown: no published figure for these machines".into(),
        },
        tells: "whether RDMA makes several nodes faster than one here, as measured on M3 Ultra"
            .into(),
    })
}

/// What the cluster itself takes of the memory.
fn own_cost(picks: &Picks) -> Option<Opportunity> {
    let whole = effective::of_cluster(picks.cluster, picks.ask.measured);
    let item = whole
        .items
        .iter()
        .find(|item| item.item.starts_with("unmeasured"))?;
    Some(Opportunity {
        measure: "the largest model that loads and answers, node by node, against the limit".into(),
        expected: format!("{} stand aside as {}", gib(item.bytes), item.item),
        tells: "how much of it is really needed; the rest becomes effective memory".into(),
    })
}

/// The comfortable model whose rate is least certain.
fn widest(picks: &Picks) -> Option<Opportunity> {
    let several = picks.cluster.nodes.len() > 1;
    let (verdict, rate) = picks
        .verdicts
        .iter()
        .filter(|verdict| verdict.tier == Tier::Comfortable)
        .filter(|verdict| !several || verdict.nodes_used() > 1)
        .filter_map(|verdict| Some((verdict, verdict.decode_tok_s?)))
        .filter(|(_, rate)| rate.evidence != Evidence::Measured && rate.mid > 0.0)
        .max_by(|(a, x), (b, y)| {
            let width = |rate: &Estimate| (rate.high - rate.low) / rate.mid;
            width(x)
                .total_cmp(&width(y))
                .then(a.weights_bytes.cmp(&b.weights_bytes))
        })?;
    Some(Opportunity {
        measure: format!("decode of {} at {}", verdict.name, verdict.quant),
        expected: words::rate(&rate),
        tells:
            "the least certain rate of all that fits here; one row narrows it and its neighbours"
                .into(),
    })
}

/// The borderline model nearest to the edge.
fn edge(picks: &Picks) -> Option<Opportunity> {
    let fullest = picks
        .verdicts
        .iter()
        .filter(|verdict| verdict.tier == Tier::Borderline)
        .max_by(|a, b| {
            let share = |verdict: &Verdict| verdict.utilization.unwrap_or(0.0);
            share(a).total_cmp(&share(b))
        })?;
    let context = tokens(fullest.max_context?);
    Some(Opportunity {
        measure: format!(
            "{} at {} with {context} of context",
            fullest.name, fullest.quant
        ),
        expected: format!(
            "it loads: {} of effective memory at {}",
            fullest.utilization.map(percent)?,
            tokens(fullest.load.context)
        ),
        tells: "whether the limit holds at its edge".into(),
    })
}
