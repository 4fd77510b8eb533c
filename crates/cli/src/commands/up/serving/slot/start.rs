//! Starting a model on the nodes that it was placed on.

use std::sync::Arc;

use anyhow::bail;
use brigade_gguf::{Layers, check_stages};
use brigade_node::{BreakOff, Cluster, Links, Placement, Seat, Tokenizer};

use super::super::Shared;
use super::super::declared::Declared;
use super::{Loaded, Serves, Slot};
use crate::backend::LocalBackend;
use crate::model::{self, Engine};
use crate::output;

impl Slot {
    /// One attempt, which another thread may break off.
    pub(super) fn start(
        &self,
        shared: &Shared,
        break_off: &BreakOff,
        progress: &mut dyn FnMut(String),
    ) -> anyhow::Result<Loaded> {
        let order = &self.declared.order;
        // Without its nodes nothing needs to be read.
        let seats = seats(shared, &self.declared)?;
        let mut source = shared.open(order)?;
        let context_tokens = model::context(&source, order.context)?;
        let (mut placement, remark) = model::placement(&source, seats.len() as u32, order.engine)?;
        let engine = Engine::of(&placement);
        let stages = order.stages.iter().map(|stage| stage.layers);
        let ranges: Vec<Layers> = stages.map(Layers::from).collect();
        match &mut placement {
            Placement::Rpc(planned) if ranges.iter().all(|range| !range.is_empty()) => {
                *planned = ranges;
            }
            // Nothing was planned for them.
            Placement::Rpc(_) => {}
            Placement::Whole | Placement::Stages(_) => {
                check_stages(source.header(), &ranges)?;
                placement = Placement::Stages(ranges);
            }
        }
        if engine == Engine::LlamaRpc && source.is_hollow() {
            // llama.cpp's client reads all of the weights.
            let (client, cache) = (crate::hub::client(), shared.daemon.cache_rules());
            source = brigade_node::fetch_model(&client, &order.model, &cache, |step| {
                progress(output::progress_text(&step));
                break_off.check()
            })?;
        }
        let name = self.declared.name.clone();
        progress(match seats.len() {
            1 => format!("{name} on {}", seats[0].host.name),
            nodes => format!("{name} on {nodes} nodes"),
        });
        let tokenizer = Tokenizer::start(source.path())?;
        let template =
            model::chat_template(&source, shared.template.as_deref(), tokenizer.facts())?;
        let facts = model::facts(&source)?;
        let mut spec = model::spec(source, placement, context_tokens, order.decoding, None)?;
        spec.threads = order.threads;
        spec.links = Links::Encrypted;
        let (daemon, tell) = (&shared.daemon, |step| {
            progress(output::progress_text(&step));
        });
        let cluster = Cluster::start_on(daemon, &seats, &spec, &tokenizer, break_off, tell)?;
        let instance = cluster.instance.clone();
        let backend = LocalBackend::new(instance, tokenizer, name, context_tokens, facts);
        let serves = Serves {
            info: backend.info().clone(),
            backend: Arc::new(backend),
            template: template.map(Arc::new),
            engine,
            remark,
        };
        Ok(Loaded { cluster, serves })
    }
}

/// Where the stages go; an error names what is waited for.
fn seats(shared: &Shared, declared: &Declared) -> anyhow::Result<Vec<Seat>> {
    let Declared { order, name } = declared;
    if let [stage, ..] = shared.lost_for_good(declared)[..] {
        bail!(
            "{} was forgotten: `brigade unload {name}`, then load it again",
            stage.node
        );
    }
    let mut down = Vec::new();
    let mut seats = Vec::new();
    for stage in &order.stages {
        let Ok(host) = shared.daemon.find_host(&stage.id) else {
            down.push(stage.node.as_str());
            continue;
        };
        // A path of its own, by what the node was called when it was named.
        let own = order
            .on
            .iter()
            .find(|(asked, _)| *asked == stage.node || stage.id.starts_with(asked.as_str()));
        seats.push(Seat {
            host,
            model: own.and_then(|(_, path)| path.clone()),
            needs: stage.needs.clone(),
        });
    }
    match down[..] {
        [] => Ok(seats),
        [one] => bail!("{one} is not up"),
        _ => bail!("{} are not up", down.join(", ")),
    }
}
