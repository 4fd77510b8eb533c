//! What the planner predicts by a calibration against what stages on this machine do.
//!
//! The stages of one answer compute in turn, so that sharing this machine's cores costs each of
//! them nothing: what is predicted is one answer alone, over the loopback interface.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use brigade_fit::cluster::{Cluster as Machines, Link, Links, Node};
use brigade_fit::evidence::Estimate;
use brigade_fit::model::Model;
use brigade_fit::speed::calibration::Calibration;
use brigade_fit::verdict::{self, Given};
use brigade_gguf::Layers;
use brigade_node::{Cluster, End, Event, Placement, Prompt, Text, Tokenizer};

use crate::model::Decoding;
use crate::{about, model, placing, planner, this_machine};

/// Tokens of an answer.
const TOKENS: u32 = 48;

/// A prediction and what came.
#[derive(Debug, serde::Serialize)]
pub(super) struct Compared {
    model: String,
    stages: u32,
    predicted_tok_s: Option<Estimate>,
    /// Of each answer, in order.
    measured_tok_s: Vec<f64>,
}

impl Compared {
    /// Half of the answers were at least so fast.
    fn middle(&self) -> f64 {
        let mut sorted = self.measured_tok_s.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    pub(super) fn line(&self) -> String {
        let measured = self.middle();
        let best = self.measured_tok_s.iter().copied().fold(0.0, f64::max);
        let head = format!("{} on {} stages", self.model, self.stages);
        match &self.predicted_tok_s {
            Some(predicted) => format!(
                "{head}: {:.1} tok/s predicted ({}), {measured:.1} measured at the median of {} \
                 (best {best:.1}): {:+.1} %",
                predicted.mid,
                predicted.evidence.name(),
                self.measured_tok_s.len(),
                (predicted.mid / measured - 1.0) * 100.0
            ),
            None => format!("{head}: {measured:.1} tok/s measured, and no prediction"),
        }
    }
}

/// Runs a model on so many stages, `answers` times.
pub(super) fn check(
    path: &Path,
    stages: u32,
    answers: u32,
    calibration: &Calibration,
) -> anyhow::Result<Compared> {
    let source = model::open(path)?;
    let ranges = model::even(&source, stages)?;
    let predicted = predict(&source, &ranges, calibration)?;
    let name = model::name(&source);
    let tokenizer = Tokenizer::start(source.path())?;
    let context = model::context(&source, Some(512))?;
    let placement = Placement::Stages(ranges);
    let decoding = Decoding::alone(0);
    let threads = Some(calibration.threads);
    let spec = model::spec(source, placement, context, decoding, threads)?;
    let cluster = Cluster::start(&spec, &tokenizer, |_| {})?;
    let prompt = tokenizer.tokenize(Text {
        text: "Once upon a time there was a".to_owned(),
        add_special: true,
        parse_special: false,
    })?;
    let mut measured_tok_s = Vec::new();
    for answer in 0..=answers {
        let mut answered =
            cluster
                .instance
                .submit(Prompt::greedy(prompt.clone(), TOKENS, End::Ignored))?;
        let mut first = None;
        let seconds = loop {
            match answered.next_blocking().context("the answer broke off")? {
                Event::Token { .. } => {
                    first.get_or_insert_with(Instant::now);
                }
                Event::Done { .. } => {
                    break first.context("no token came")?.elapsed().as_secs_f64();
                }
                Event::Started { .. } => {}
                Event::Failed(reason) | Event::Refused(reason) => bail!("{reason}"),
            }
        };
        // The first one warms up.
        if answer > 0 {
            measured_tok_s.push(f64::from(TOKENS - 1) / seconds);
        }
    }
    Ok(Compared {
        model: name,
        stages,
        predicted_tok_s: predicted,
        measured_tok_s,
    })
}

/// What the planner says of as many machines like this one.
fn predict(
    source: &brigade_gguf::Source,
    ranges: &[Layers],
    calibration: &Calibration,
) -> anyhow::Result<Option<Estimate>> {
    let catalog = planner::catalog(None)?;
    let facts = about::facts(&catalog, Some(calibration.threads as usize));
    let (mut machine, _) = this_machine::machine(&facts, &catalog);
    if let Some(pool) = machine.pools.first_mut() {
        pool.calibration = Some(calibration.clone());
    }
    let node = |index: usize| Node {
        name: format!("node-{}", index + 1),
        machine: machine.clone(),
    };
    let machines = Machines {
        id: "lab".to_owned(),
        name: "a lab on this machine".to_owned(),
        nodes: (0..ranges.len()).map(node).collect(),
        // What a hop takes over loopback is what is counted for its software.
        links: Links::Uniform(Link {
            id: "loopback".to_owned(),
            name: "loopback".to_owned(),
            latency_ms: 0.0,
            bandwidth_gb_s: 2.0,
            rdma: None,
            source: "this machine".to_owned(),
        }),
    };
    let fit = Model::from_gguf(source.model(), &model::name(source))?;
    let quant = fit.quants.first().map(|quant| quant.name.clone());
    // In the middle of the answer.
    let ask = placing::ask(TOKENS / 2, 1, quant);
    let given: Given = ranges
        .iter()
        .enumerate()
        .map(|(index, range)| (index, range.start..range.end))
        .collect();
    let speed = planner::speed(&catalog);
    let (verdict, _) = verdict::assess_given(&fit, &machines, &ask, &speed, &given)?;
    Ok(verdict.decode_tok_s)
}
