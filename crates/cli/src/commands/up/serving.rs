//! The model that a daemon serves, one at a time.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, bail};
use brigade_api::{
    Backend, BackendError, ChatTemplate, Generation, GenerationRequest, Load, ModelInfo, Settings,
};
use brigade_node::{Cluster, Daemon, End, Host, Links, NodeInfo, Prompt, Seat, Tokenizer, child};

use super::Report;
use crate::backend::LocalBackend;
use crate::control::{LoadOrder, Running, StageView};
use crate::model::{self, Engine};
use crate::output::{self, Told};
use crate::server::Server;

/// How the API is served, whatever the model.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) listener: TcpListener,
    pub(super) settings: Settings,
    /// Another chat template than the models' own.
    pub(super) template: Option<String>,
}

impl Api {
    fn start(
        &self,
        backend: impl Backend,
        template: Option<ChatTemplate>,
    ) -> anyhow::Result<Server> {
        let listener = self.listener.try_clone()?;
        Server::start(listener, backend, template, self.settings.clone())
    }
}

/// What the API serves.
#[derive(Debug)]
pub(super) struct Serving {
    daemon: Arc<Daemon>,
    api: Api,
    loaded: Mutex<Option<Loaded>>,
    /// Answers on the API's address; none only while one takes over from another. Locked for as
    /// long as a model is being loaded or unloaded, which may be minutes.
    server: Mutex<Option<Server>>,
}

#[derive(Debug)]
struct Loaded {
    cluster: Cluster,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    running: Running,
}

/// The API of a node on which no model is loaded.
#[derive(Debug)]
struct NoModel;

impl Backend for NoModel {
    fn models(&self) -> Vec<ModelInfo> {
        Vec::new()
    }

    fn load(&self) -> Result<Load, BackendError> {
        Err(BackendError::Unavailable(
            "no model is loaded: `brigade load` runs one".to_owned(),
        ))
    }

    async fn generate(&self, request: GenerationRequest) -> Result<Generation, BackendError> {
        Err(BackendError::UnknownModel(request.model))
    }
}

impl Serving {
    pub(super) fn start(daemon: Arc<Daemon>, api: Api) -> anyhow::Result<Self> {
        let server = api.start(NoModel, None)?;
        Ok(Self {
            daemon,
            api,
            loaded: Mutex::new(None),
            server: Mutex::new(Some(server)),
        })
    }

    /// Starts a model on the cluster and serves it; `progress` gets lines for people.
    pub(super) fn load(
        &self,
        order: &LoadOrder,
        mut progress: impl FnMut(String),
    ) -> anyhow::Result<Running> {
        let mut server = self.change()?;
        if let Some(running) = self.running() {
            if running.failure.is_none() {
                bail!(
                    "{} is loaded here: `brigade unload` it first",
                    running.model
                );
            }
            self.clear(&mut server)?;
        }
        let source = model::open(&order.model)?;
        let context_tokens = model::context(&source, order.context)?;
        let seats = self.seats(order, source.header().block_count()?)?;
        let (placement, remark) = model::placement(&source, seats.len() as u32, order.engine)?;
        let engine = Engine::of(&placement);
        let name = model::name(&source);
        progress(format!("{name} on {} nodes", seats.len()));
        let tokenizer = Tokenizer::start(source.path())?;
        let template =
            model::chat_template(&source, self.api.template.as_deref(), tokenizer.facts())?;
        let facts = model::facts(&source)?;
        let mut spec = model::spec(source, placement, context_tokens, None)?;
        spec.threads = order.threads;
        spec.links = Links::Encrypted;
        let cluster = Cluster::start_on(&self.daemon, &seats, &spec, &tokenizer, |step| {
            progress(output::progress_text(&step));
        })?;
        let running = Running {
            model: name.clone(),
            context_tokens,
            api: self.api.listener.local_addr()?,
            stages: cluster.nodes.iter().map(stage).collect(),
            client: cluster.client.as_ref().map(stage),
            chats: template.is_some(),
            engine,
            remark,
            failure: None,
        };
        let death = cluster.death();
        let mourned = name.clone();
        thread::spawn(move || match death() {
            Some(how) if child::has_parent() => child::report(&Report::Lost(how)),
            Some(how) => output::note(&format!(
                "brigade: {how}; requests for {mourned} get an error until it is loaded again"
            )),
            None => {}
        });
        let backend = LocalBackend::new(
            cluster.instance.clone(),
            tokenizer.clone(),
            name,
            context_tokens,
            facts,
        );
        self.serve(&mut server, backend, template.clone())?;
        *self.loaded() = Some(Loaded {
            cluster,
            tokenizer,
            template,
            running: running.clone(),
        });
        Ok(running)
    }

    /// Ends the model; returns its name.
    pub(super) fn unload(&self) -> anyhow::Result<String> {
        let mut server = self.change()?;
        let Some(running) = self.running() else {
            bail!("no model is loaded here");
        };
        self.clear(&mut server)?;
        Ok(running.model)
    }

    /// The model that is loaded.
    pub(super) fn running(&self) -> Option<Running> {
        self.loaded().as_ref().map(|loaded| Running {
            failure: loaded.cluster.instance.failure(),
            ..loaded.running.clone()
        })
    }

    /// Answers a question as whoever runs the model would; `show` gets the pieces. Gives the tokens of
    /// the prompt as well.
    pub(super) fn answer(
        &self,
        question: &str,
        max_tokens: u32,
        show: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<(usize, Told)> {
        let (tokens, instance) = {
            let loaded = self.loaded();
            let loaded = loaded.as_ref().context("no model is loaded here")?;
            let said = [model::user(question)];
            let tokens = model::conversation(&said, loaded.template.as_ref(), &loaded.tokenizer)?;
            (tokens, loaded.cluster.instance.clone())
        };
        let prompt_tokens = tokens.len();
        let start = Instant::now();
        let mut answer = instance.submit(Prompt::greedy(tokens, max_tokens, End::Respected))?;
        let told = output::stream(&mut answer, start, show)?;
        Ok((prompt_tokens, told))
    }

    /// Ends everything. A model that is being loaded is not waited for: its processes end with
    /// the daemon.
    pub(super) fn stop(&self) {
        // First the cluster, so that answers in progress end with an error and not in silence.
        drop(self.loaded().take());
        if let Ok(mut server) = self.change()
            && let Some(server) = server.take()
        {
            server.stop();
        }
    }

    fn clear(&self, server: &mut Option<Server>) -> anyhow::Result<()> {
        drop(self.loaded().take());
        self.serve(server, NoModel, None)
    }

    fn serve(
        &self,
        server: &mut Option<Server>,
        backend: impl Backend,
        template: Option<ChatTemplate>,
    ) -> anyhow::Result<()> {
        if let Some(server) = server.take() {
            server.stop();
        }
        *server = Some(self.api.start(backend, template)?);
        Ok(())
    }

    /// Who gets a stage: those that were named, or all that are up, as far as there are layers.
    fn seats(&self, order: &LoadOrder, layers: u32) -> anyhow::Result<Vec<Seat>> {
        let hosts = self.daemon.hosts();
        let seat = |host: &Host, path: Option<&std::path::PathBuf>| Seat {
            host: host.clone(),
            model: path.unwrap_or(&order.model).clone(),
        };
        if order.on.is_empty() {
            let most = layers as usize;
            return Ok(hosts
                .iter()
                .take(most)
                .map(|host| seat(host, None))
                .collect());
        }
        let mut seats: Vec<Seat> = Vec::new();
        for (asked, path) in &order.on {
            let host = self.daemon.find_host(asked).with_context(|| {
                let up: Vec<_> = hosts.iter().map(|host| host.name.as_str()).collect();
                format!("up are {}", up.join(", "))
            })?;
            if seats.iter().any(|seat| seat.host == host) {
                bail!("{asked} is named twice: a node has one stage of a model");
            }
            seats.push(seat(&host, path.as_ref()));
        }
        Ok(seats)
    }

    fn loaded(&self) -> MutexGuard<'_, Option<Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to load and unload, which one command has at a time.
    fn change(&self) -> anyhow::Result<MutexGuard<'_, Option<Server>>> {
        match self.server.try_lock() {
            Ok(server) => Ok(server),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => bail!("a model is just being loaded or unloaded here"),
        }
    }
}

fn stage(node: &NodeInfo) -> StageView {
    StageView {
        node: node.name.clone(),
        layers: node.layers,
        bytes: node.bytes,
        memory: node.memory,
        pid: node.stage_pid,
    }
}
