//! The ways to run a model on a cluster, side by side: one node, replicas, a pipeline, and tensor
//! parallel where a runtime and a link can do it.

mod tensor;

pub use tensor::{TENSOR_GAIN, TENSOR_SOURCE};

use std::fmt::Write;

use crate::FitError;
use crate::cluster::Cluster;
use crate::evidence::Estimate;
use crate::memory::Load;
use crate::model::{Format, Model, Quantization};
use crate::placement::{COMFORTABLE, Field, Level, Objective, Plan, Rule, Timing, rule};
use crate::program::Program;
use crate::speed::{Rate, Speed};
use crate::verdict::{Alternative, Ask, Split, Verdict, choice, percent, rate, setting};

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
    ways.extend(all.quickest_alone(one.as_ref())?);
    ways.extend(one);
    let nodes = verdict.nodes_used();
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
    if ask.objective == Some(Objective::ManyStreams)
        && let Some(said) = replicas_give_more(&ways)
    {
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

/// Where copies serve more than the chosen way.
fn replicas_give_more(ways: &[Way]) -> Option<String> {
    let chosen = &ways.first()?.alternative;
    let copies = ways
        .iter()
        .find(|way| way.alternative.split == Split::Replicas)?;
    let copies = &copies.alternative;
    let both = copies.streams.iter().filter_map(|(number, of_copies)| {
        let mut own = chosen.streams.iter();
        let (_, own) = own.find(|(other, _)| other == number)?;
        Some((*number, of_copies.mid, own.mid))
    });
    let (streams, of_copies, own) = both.max_by_key(|(number, _, _)| *number)?;
    (chosen.split != Split::Replicas && of_copies > own * WORTH_SAYING).then(|| {
        format!(
            "{} would serve more: {} against {} with {streams} streams.",
            copies.name,
            rate(of_copies),
            rate(own)
        )
    })
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
        let Some(best) = ways.one_node(self.speed) else {
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

    /// The node that is quickest alone, where that is another way than the wise one.
    fn quickest_alone(&self, one: Option<&Way>) -> Result<Option<Way>, FitError> {
        let ways = choice::Ways::new(self.model, self.quant, self.cluster, self.load, self.ask)?;
        let wise = one.and_then(|way| way.alternative.decode_tok_s);
        let Some(best) = ways.quickest_alone(self.speed) else {
            return Ok(None);
        };
        let node = &self.cluster.nodes[best.plan.stages[0].node];
        let gpus = best.field.gpus_only().is_none() && ways.has_ram_beside_gpus();
        let alternative = self.alternative(
            Split::OneNode,
            format!(
                "one node, {}{}",
                node.machine.name,
                if gpus { ", in its GPUs alone" } else { "" }
            ),
            &best.field,
            &best.plan,
            format!("{} alone, quicker but with less room.", node.name),
        );
        let rate = alternative.decode_tok_s.map(|estimate| estimate.mid);
        let quicker = rate
            .zip(wise)
            .is_none_or(|(rate, wise)| rate > wise.mid * 1.05);
        Ok(quicker.then_some(Way {
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
        let fullest =
            |(field, plan): &(Field, Plan)| field.utilization(plan, Level::Effective(1.0));
        copies.sort_by(|a, b| fullest(b).total_cmp(&fullest(a)));
        let streams = self.dealt(&copies);
        let rates = copies.iter().filter_map(|(field, plan)| {
            let timing = Timing {
                field,
                plan,
                speed: self.speed,
            };
            Some(self.decode(&timing)?.0)
        });
        let mut rates: Vec<Estimate> = rates.collect();
        rates.sort_by(|a, b| a.mid.total_cmp(&b.mid));
        let mut note = "For many users: each stream runs at one node's speed, and a node may fail. Each copy is downloaded.".to_owned();
        if let [slowest, .., quickest] = &rates[..]
            && quickest.mid > slowest.mid * 1.1
        {
            let _ = write!(
                note,
                " From {} to {} by node; streams are dealt to where they gain most.",
                rate(slowest.mid),
                rate(quickest.mid)
            );
        }
        let (field, plan) = &copies[0];
        let mut alternative = self.alternative(
            Split::Replicas,
            format!("{} replicas, one a node", copies.len()),
            field,
            plan,
            note,
        );
        alternative.decode_tok_s = rates.last().copied();
        let one = alternative.decode_tok_s;
        let dealt = streams.into_iter();
        alternative.streams = dealt
            .filter_map(|(number, all)| Some((number, one?.together(all))))
            .collect();
        Ok(Some(Way {
            alternative,
            nodes: copies.len(),
        }))
    }

    /// Tokens a second of all streams over copies, each stream where it gains most.
    fn dealt(&self, copies: &[(Field, Plan)]) -> Vec<(u32, f64)> {
        let at = |copy: usize, streams: u32| match streams {
            0 => Some(0.0),
            _ => self.together(&copies[copy].0, &copies[copy].1, streams),
        };
        // What each has, makes of it, and would make of one more.
        let mut held: Vec<(u32, f64, Option<f64>)> = (0..copies.len())
            .map(|copy| (0, 0.0, at(copy, 1)))
            .collect();
        let mut streams = Vec::new();
        for number in 1..=STREAMS[STREAMS.len() - 1] {
            let gains = held
                .iter()
                .enumerate()
                .filter_map(|(copy, (_, now, next))| Some((copy, (*next)? - now)));
            let Some((copy, _)) = gains.max_by(|a, b| a.1.total_cmp(&b.1)) else {
                break;
            };
            let more = held[copy].0 + 1;
            held[copy] = (more, held[copy].2.unwrap_or(0.0), at(copy, more + 1));
            if STREAMS.contains(&number) {
                streams.push((number, held.iter().map(|(_, now, _)| now).sum()));
            }
        }
        streams
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
                self.pipeline_name(&plan),
                &field,
                &plan,
                self.pipeline_note(),
            );
            ways.push(Way { alternative, nodes });
        }
        Ok(ways)
    }

    /// How many nodes, and which where they are not all alike.
    fn pipeline_name(&self, plan: &Plan) -> String {
        let nodes = &self.cluster.nodes;
        let count = plan.stages.len();
        let alike = nodes.iter().all(|node| node.machine == nodes[0].machine);
        if alike || count == nodes.len() {
            return format!("pipeline over {count} nodes");
        }
        let names = plan
            .stages
            .iter()
            .map(|stage| nodes[stage.node].name.as_str());
        let names: Vec<&str> = names.collect();
        format!("pipeline over {count} nodes, {}", names.join(", "))
    }

    fn pipeline_note(&self) -> String {
        let mut note =
            "It gives memory, not speed: one stream is in one stage at a time, so that it is no faster than the fastest of these nodes would be if it held all.".to_owned();
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
        let decode = fits.then(|| self.decode(&timing)).flatten();
        if !fits {
            note = format!("Does not fit: {} of effective memory.", percent(used));
        }
        let decode = decode.map(|(estimate, _)| estimate);
        let mut streams = Vec::new();
        if let Some(one) = decode {
            for number in STREAMS {
                match self.together(field, plan, number) {
                    Some(_) if number == 1 => streams.push((1, one)),
                    Some(all) => streams.push((number, one.together(all))),
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

    /// One stream's rate, and by how much measurements correct the formula's.
    fn decode(&self, timing: &Timing) -> Option<(Estimate, f64)> {
        let seconds = timing.token_s().ok()?;
        let setting = setting(timing.field, timing.plan, self.load.context);
        let estimate = self.speed.around(1.0 / seconds, Rate::Decode, &setting);
        Some((estimate, estimate.mid * seconds))
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
        let (_, correction) = self.decode(&timing)?;
        Some(timing.together(streams).ok()? * correction)
    }

    fn runtimes(&self, split: Split) -> Vec<String> {
        let names: &[&str] = match (self.quant.format, split) {
            (_, Split::Pipeline) => match Program::of_pipeline(self.model, self.quant.format) {
                Program::Brigade => &["Brigade", "llama.cpp RPC"],
                Program::LlamaRpc => &["llama.cpp RPC"],
                Program::Exo => &["exo", "mlx-lm distributed"],
                Program::Vllm => &["vLLM"],
            },
            (Format::Gguf, _) => &["Brigade", "llama-server"],
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
