//! Where a model that shall be loaded goes.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use brigade_fit::model::Model;
use brigade_gguf::Source;
use brigade_node::{Host, NodeState, NodeView};

use super::{Shared, kept, must_be_free};
use crate::control::LoadOrder;
use crate::model::{self, Engine};
use crate::placing::{self, Choice, Placed};

/// How long a node that has just started may take to say what machine it is.
const INTRODUCTION: Duration = Duration::from_secs(20);

/// Stands for all nodes that are up.
const ALL: &str = "all";

impl Shared {
    /// What the planner says of a model.
    pub(super) fn plan(&self, order: &LoadOrder, dry_run: bool) -> anyhow::Result<Placed> {
        let source = self.open(order)?;
        if !dry_run {
            must_be_free(&self.lock(), &model::name(&source))?;
        }
        Ok(Placed {
            header: kept(order, &source),
            ..self.place(order, &source)?
        })
    }

    pub(super) fn place(&self, order: &LoadOrder, source: &Source) -> anyhow::Result<Placed> {
        let context = model::context(source, order.context)?;
        let hosts = self.named(order)?;
        let (placement, remark) = model::placement(source, 1, order.engine)?;
        let engine = Engine::of(&placement);
        let fit = Model::from_gguf(source.model(), &model::name(source))?;
        if engine == Engine::LlamaRpc && !fit.missing.is_empty() {
            return Ok(placing::spread(&hosts, &fit, remark));
        }
        let quant = fit.quants.first().map(|quant| quant.name.clone());
        let nodes = self.known_nodes();
        let cluster = placing::cluster(&nodes, &self.daemon.links(), &self.catalog, order.threads);
        if cluster.0.nodes.is_empty() {
            bail!("this node has not seen yet what machine it is: try again in a moment");
        }
        let id = |host: &Host| host.key.id().to_string();
        let choice = if !order.given.is_empty() {
            let given = order
                .given
                .iter()
                .map(|(node, (start, end))| Ok((id(&self.host(node)?), *start..*end)));
            Choice::Given(given.collect::<anyhow::Result<_>>()?)
        } else if order.on.is_empty() && engine == Engine::Stages {
            Choice::Planner
        } else {
            let mut ids = Vec::new();
            for host in hosts {
                let id = id(&host);
                if ids.contains(&id) {
                    bail!(
                        "{} is named twice: a node has one stage of a model",
                        host.name
                    );
                }
                ids.push(id);
            }
            Choice::All(ids)
        };
        let ask = placing::ask(context, order.decoding.streams, quant);
        let mut placed = placing::place(&self.catalog, &fit, &cluster, &ask, &choice, engine)?;
        if let Some(remark) = remark {
            placed.text = format!("{remark}\n{}", placed.text);
        }
        Ok(placed)
    }

    /// The nodes; those that are up and have not yet said what machine they are get a moment.
    fn known_nodes(&self) -> Vec<NodeView> {
        let until = Instant::now() + INTRODUCTION;
        loop {
            let nodes = self.daemon.nodes();
            let is_unknown = |node: &NodeView| {
                let about = node
                    .facts
                    .as_ref()
                    .is_none_or(|facts| facts.about.is_empty());
                about && (node.is_self || node.state == NodeState::Up)
            };
            if !nodes.iter().any(is_unknown) || Instant::now() > until {
                return nodes;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The nodes of `--on`, in its order; without it, every node that is up.
    fn named(&self, order: &LoadOrder) -> anyhow::Result<Vec<Host>> {
        match &order.on[..] {
            [] => return Ok(self.daemon.hosts()),
            [(all, None)] if all == ALL => return Ok(self.daemon.hosts()),
            _ => {}
        }
        order.on.iter().map(|(node, _)| self.host(node)).collect()
    }

    fn host(&self, asked: &str) -> anyhow::Result<Host> {
        let daemon = &self.daemon;
        daemon.find_host(asked).with_context(|| {
            let hosts = daemon.hosts();
            let up: Vec<_> = hosts.iter().map(|host| host.name.as_str()).collect();
            format!("up are {}", up.join(", "))
        })
    }
}
