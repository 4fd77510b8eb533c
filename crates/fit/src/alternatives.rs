//! The ways to run a model on a cluster, side by side: one node, replicas, a pipeline, and tensor
//! parallel where a runtime and a link can do it.

mod tensor;

pub use tensor::{TENSOR_GAIN, TENSOR_SOURCE};

use crate::FitError;
use crate::cluster::Cluster;
use crate::memory::Load;
use crate::model::{Format, Model, Quantization};
use crate::placement::{COMFORTABLE, Field, Level, Objective, Plan, Rule, Timing, rule};
use crate::speed::{Rate, Speed};
use crate::verdict::{Alternative, Ask, Split, Verdict, choice, percent, setting};

/// Numbers of streams that a curve shows.
pub const STREAMS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];

/// A way and how many nodes it takes.
struct Way {
    alternative: Alternative,
    nodes: usize,
}

/// Fills in the alternatives, the chosen one first, and says where fewer nodes are faster.
pub(crate) fn fill(
    verdict: &mut Verdict,
    model: &Model,
    quant: &Quantization,
    cluster: &Cluster,
    ask: &Ask,
    speed: &dyn Speed,
) -> Result<(), FitError> {
    let all = Compare {
        model,
        quant,
        cluster,
        ask,
        speed,
        load: verdict.load,
    };
    let mut ways = Vec::new();
    let one = all.one_node()?;
    ways.extend(all.replicas()?);
    ways.extend(all.pipelines()?);
    ways.extend(all.tensor(one.as_ref())?);
    ways.extend(one);
    let used = verdict.ledger.iter().filter(|node| !node.pools.is_empty());
    let nodes = used.count();
    let is_chosen = |way: &Way| match way.alternative.split {
        Split::OneNode => nodes == 1,
        Split::Pipeline => nodes > 1 && way.nodes == nodes,
        Split::Replicas | Split::Tensor => false,
    };
    let order = |way: &Way| match way.alternative.split {
        Split::OneNode => 0,
        Split::Replicas => 1,
        Split::Pipeline => 2,
        Split::Tensor => 3,
    };
    ways.sort_by_key(|way| (!is_chosen(way), order(way), way.nodes));
    if let Some(said) = fewer_is_faster(&ways) {
        verdict.reasons.push(said);
    }
    verdict.alternatives = ways.into_iter().map(|way| way.alternative).collect();
    Ok(())
}

/// How much faster a way must be to be spoken of.
const WORTH_SAYING: f64 = 1.005;

/// Where the chosen way has more nodes than the fastest that fits.
fn fewer_is_faster(ways: &[Way]) -> Option<String> {
    let chosen = ways.first()?;
    let rate = |way: &Way| way.alternative.decode_tok_s.map(|estimate| estimate.mid);
    let now = rate(chosen)?;
    let faster = ways[1..]
        .iter()
        .filter(|way| way.alternative.fits && way.nodes < chosen.nodes)
        .filter(|way| matches!(way.alternative.split, Split::OneNode | Split::Pipeline))
        .filter(|way| rate(way).is_some_and(|rate| rate > now * WORTH_SAYING))
        .max_by(|a, b| rate(a).unwrap_or(0.0).total_cmp(&rate(b).unwrap_or(0.0)))?;
    let gain = rate(faster)? / now - 1.0;
    Some(format!(
        "Fewer nodes are faster for one stream: {} decodes {:.1} % faster than {}.",
        faster.alternative.name,
        gain * 100.0,
        chosen.alternative.name
    ))
}

struct Compare<'a> {
    model: &'a Model,
    quant: &'a Quantization,
    cluster: &'a Cluster,
    ask: &'a Ask,
    speed: &'a dyn Speed,
    load: Load,
}

impl<'a> Compare<'a> {
    fn field(&self) -> Result<Field<'a>, FitError> {
        Field::new(
            self.model,
            self.quant,
            self.cluster,
            self.load,
            self.ask.measured,
        )
    }

    fn one_node(&self) -> Result<Option<Way>, FitError> {
        let ways = choice::Ways::new(self.model, self.quant, self.cluster, self.load, self.ask)?;
        let (Some(best), _) = ways.one_node(self.speed) else {
            return Ok(None);
        };
        let node = &self.cluster.nodes[best.plan.stages[0].node];
        let said = if self.cluster.nodes.len() > 1 {
            format!(
                "{} alone: no link is needed, the others are free.",
                node.name
            )
        } else {
            "No link is needed.".into()
        };
        let alternative = self.alternative(
            Split::OneNode,
            format!("one node, {}", node.machine.name),
            &best.field,
            &best.plan,
            said,
        );
        Ok(Some(Way {
            alternative,
            nodes: 1,
        }))
    }

    /// A copy on each node that holds one.
    fn replicas(&self) -> Result<Option<Way>, FitError> {
        let mut copies = Vec::new();
        for node in 0..self.cluster.nodes.len() {
            let mut field = self.field()?;
            field.alone(node);
            let Some((plan, _)) = field.roomiest(1) else {
                continue;
            };
            if field.utilization(&plan, Level::Limit) <= 1.0 {
                copies.push((field, plan));
            }
        }
        if copies.len() < 2 {
            return Ok(None);
        }
        let count = copies.len() as u32;
        let mut streams = Vec::new();
        for number in STREAMS {
            let share = number.div_ceil(count);
            let busy = copies.iter().take(number as usize);
            let rates: Option<Vec<f64>> = busy
                .map(|(field, plan)| self.together(field, plan, share))
                .collect();
            match rates {
                // The last copies may have fewer; what is counted is what all streams get.
                Some(rates) if number >= count => {
                    let full: f64 = rates.iter().sum();
                    streams.push((number, full * f64::from(number) / f64::from(share * count)));
                }
                Some(rates) => streams.push((number, rates.iter().sum())),
                None => break,
            }
        }
        let (field, plan) = &copies[0];
        let mut alternative = self.alternative(
            Split::Replicas,
            format!("{count} replicas, one a node"),
            field,
            plan,
            "For many users: each stream runs at one node's speed, and a node may fail. Each copy is downloaded.".into(),
        );
        alternative.streams = streams;
        Ok(Some(Way {
            alternative,
            nodes: copies.len(),
        }))
    }

    fn pipelines(&self) -> Result<Vec<Way>, FitError> {
        let count = self.cluster.nodes.len();
        let mut ways = Vec::new();
        for nodes in counts(count) {
            let mut found = None;
            for level in [
                Level::Effective(COMFORTABLE),
                Level::Effective(1.0),
                Level::Limit,
            ] {
                let field = self.some_nodes(nodes)?;
                let plan = if nodes == count || field.nodes() == nodes {
                    field
                        .roomiest(usize::MAX)
                        .map(|(plan, _)| plan)
                        .filter(|plan| field.utilization(plan, Level::Limit) <= 1.0)
                } else {
                    field
                        .place(Objective::OneStream, level, nodes, self.speed)
                        .unwrap_or(None)
                };
                if let Some(plan) = plan {
                    found = Some((field, plan));
                    break;
                }
            }
            let Some((field, plan)) = found.filter(|(_, plan)| plan.stages.len() == nodes) else {
                continue;
            };
            let alternative = self.alternative(
                Split::Pipeline,
                format!("pipeline over {nodes} nodes"),
                &field,
                &plan,
                self.pipeline_note(),
            );
            ways.push(Way { alternative, nodes });
        }
        Ok(ways)
    }

    fn pipeline_note(&self) -> String {
        let mut note =
            "It gives memory, not speed: one stream is in one stage at a time.".to_owned();
        if rule(&self.model.architecture) == Rule::Refused {
            note.push_str(
                " By llama.cpp RPC only: stages of this architecture would compute something else.",
            );
        }
        note
    }

    /// The first of nodes that are all alike, or all nodes.
    fn some_nodes(&self, nodes: usize) -> Result<Field<'a>, FitError> {
        let mut field = self.field()?;
        field.if_alike_only(nodes);
        Ok(field)
    }

    fn alternative(
        &self,
        split: Split,
        name: String,
        field: &Field,
        plan: &Plan,
        mut note: String,
    ) -> Alternative {
        let used = field.utilization(plan, Level::Effective(1.0));
        let fits = field.utilization(plan, Level::Limit) <= 1.0;
        let timing = Timing {
            field,
            plan,
            speed: self.speed,
        };
        let decode = if fits { timing.token_s().ok() } else { None }.map(|seconds| {
            let setting = setting(field, plan, self.load.context);
            self.speed.around(1.0 / seconds, Rate::Decode, &setting)
        });
        if !fits {
            note = format!("Does not fit: {} of effective memory.", percent(used));
        }
        let mut streams = Vec::new();
        if fits {
            for number in STREAMS {
                match self.together(field, plan, number) {
                    Some(rate) => streams.push((number, rate)),
                    None => break,
                }
            }
        }
        Alternative {
            split,
            name,
            runtimes: self.runtimes(split),
            fits,
            utilization: Some(used),
            decode_tok_s: decode,
            streams,
            note,
        }
    }

    /// Tokens a second of all streams, if their caches fit as well.
    fn together(&self, field: &Field, plan: &Plan, streams: u32) -> Option<f64> {
        let load = Load {
            sequences: streams,
            ..self.load
        };
        let field = field.under(load);
        if field.utilization(plan, Level::Limit) > 1.0 {
            return None;
        }
        let timing = Timing {
            field: &field,
            plan,
            speed: self.speed,
        };
        timing.together(streams).ok()
    }

    fn runtimes(&self, split: Split) -> Vec<String> {
        let staged =
            brigade_gguf::Architecture::supported().any(|name| name == self.model.architecture);
        let names: &[&str] = match (self.quant.format, split) {
            (Format::Gguf, Split::Pipeline) if staged => &["Brigade", "llama.cpp RPC"],
            (Format::Gguf, Split::Pipeline) => &["llama.cpp RPC"],
            (Format::Gguf, _) => &["Brigade", "llama-server"],
            (Format::Mlx, Split::Pipeline) => &["exo", "mlx-lm distributed"],
            (Format::Mlx, _) => &["mlx-lm", "exo"],
            (Format::Safetensors, _) => &["vLLM"],
        };
        names.iter().map(|&name| name.to_owned()).collect()
    }
}

/// Numbers of nodes to compare: each, up to 8, then doubling, and all.
fn counts(nodes: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = (2..=nodes.min(8)).collect();
    let mut next = 16;
    while next < nodes {
        counts.push(next);
        next *= 2;
    }
    if nodes > 8 {
        counts.push(nodes);
    }
    counts
}

#[cfg(test)]
mod tests;
