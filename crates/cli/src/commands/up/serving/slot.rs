//! One model that shall be loaded, from its declaration to its end.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use brigade_api::{ChatTemplate, ModelInfo};
use brigade_gguf::{Layers, check_stages};
use brigade_node::{Cluster, End, Links, NodeInfo, Placement, Prompt, Seat, Tokenizer, child};

use super::Shared;
use super::declared::Declared;
use crate::backend::LocalBackend;
use crate::commands::up::Report;
use crate::control::{Running, StageView};
use crate::model::{self, Engine};
use crate::output::{self, Told};
use crate::placing::PlacedStage;

/// Between two attempts to bring a model back: this, then twice as long each time up to
/// [`LONGEST`].
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);

/// How long a death may take to reach the requests in progress.
const MOURNING: Duration = Duration::from_secs(2);

/// A model that shall be loaded.
#[derive(Debug)]
pub(super) struct Slot {
    declared: Declared,
    state: Mutex<State>,
    /// It shall end, or has.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ends: bool,
    cluster: Option<Cluster>,
    serves: Option<Serves>,
    /// As it last ran.
    stages: Vec<StageView>,
    client: Option<StageView>,
    /// Why it does not run any more.
    failure: Option<String>,
    /// What the next attempt waits for.
    waits: Option<String>,
}

/// What answers requests.
#[derive(Debug, Clone)]
pub(super) struct Serves {
    pub(super) backend: Arc<LocalBackend>,
    pub(super) template: Option<Arc<ChatTemplate>>,
    pub(super) info: ModelInfo,
    engine: Engine,
    remark: Option<String>,
}

/// A model that has just been loaded.
struct Loaded {
    cluster: Cluster,
    serves: Serves,
}

impl Slot {
    pub(super) fn new(declared: Declared) -> Arc<Self> {
        Arc::new(Self {
            declared,
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.declared.name
    }

    pub(super) fn declared(&self) -> Declared {
        self.declared.clone()
    }

    /// Whether it runs, or is being loaded for the first time.
    pub(super) fn is_in_use(&self) -> bool {
        let state = self.lock();
        state.failure.is_none() && state.waits.is_none()
    }

    /// Loads it, and sees to it from then on; an error is the end of it.
    pub(super) fn load(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        mut progress: impl FnMut(String),
    ) -> anyhow::Result<Running> {
        let (said, hears) = mpsc::channel();
        // The thread that starts processes must live as long as they do.
        self.keep(shared, move |step| {
            let _ = said.send(step);
        });
        for step in hears {
            match step {
                Step::Progress(line) => progress(line),
                Step::Loaded => return Ok(self.running(shared)),
                Step::Failed(error) => return Err(error),
            }
        }
        bail!("{} was unloaded while it was being loaded", self.name())
    }

    /// Brings it up, and again whenever it fails, until it shall end. `told` hears of the first
    /// attempt.
    pub(super) fn keep(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        mut told: impl FnMut(Step) + Send + 'static,
    ) {
        let (slot, shared) = (Arc::clone(self), Arc::clone(shared));
        thread::spawn(move || {
            let mut pause = SHORTEST;
            loop {
                let attempt = slot.attempt(&shared, &mut |line| told(Step::Progress(line)));
                match attempt {
                    Ok(loaded) => {
                        pause = SHORTEST;
                        let Some(death) = slot.run(loaded) else {
                            return;
                        };
                        shared.announce();
                        told(Step::Loaded);
                        let Some(how) = death() else { return };
                        slot.fail(&how);
                        shared.announce();
                    }
                    Err(error) => {
                        let mut state = slot.lock();
                        state.waits = Some(format!("{error:#}"));
                        drop(state);
                        shared.announce();
                        told(Step::Failed(error));
                    }
                }
                let state = slot.lock();
                let waited = slot
                    .changed
                    .wait_timeout_while(state, pause, |state| !state.ends);
                let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                if state.ends {
                    return;
                }
                pause = (pause * 2).min(LONGEST);
            }
        });
    }

    /// Takes over what was loaded, unless it shall end; gives what waits for its death.
    fn run(&self, loaded: Loaded) -> Option<impl FnOnce() -> Option<String> + use<>> {
        let Loaded { cluster, serves } = loaded;
        let death = cluster.death();
        let mut state = self.lock();
        if state.ends {
            return None;
        }
        state.stages = cluster.nodes.iter().map(view).collect();
        state.client = cluster.client.as_ref().map(view);
        state.cluster = Some(cluster);
        state.serves = Some(serves);
        state.failure = None;
        state.waits = None;
        Some(death)
    }

    fn fail(&self, how: &str) {
        let name = self.name();
        if child::has_parent() {
            child::report(&Report::Lost(how.to_owned()));
        } else {
            output::note(&format!(
                "brigade: {how}; requests for {name} get an error until it is back"
            ));
        }
        let until = Instant::now() + MOURNING;
        let mut state = self.lock();
        state.failure = Some(how.to_owned());
        state.waits = Some("the next attempt".to_owned());
        let cluster = state.cluster.take();
        drop(state);
        if let Some(cluster) = cluster {
            // Those who wait for an answer shall hear of the death, and not of the cleaning up.
            while cluster.instance.failure().is_none() && Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Ends it.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.ends = true;
        state.serves = None;
        let cluster = state.cluster.take();
        drop(state);
        self.changed.notify_all();
        drop(cluster);
    }

    /// What answers, if it was loaded at some time.
    pub(super) fn serves(&self) -> Option<Serves> {
        self.lock().serves.clone()
    }

    /// Why it cannot answer now.
    pub(super) fn trouble(&self) -> Option<String> {
        let state = self.lock();
        match (&state.failure, &state.waits, &state.cluster) {
            (Some(failure), ..) => Some(failure.clone()),
            (None, Some(waits), _) => Some(format!("{} is not loaded: {waits}", self.name())),
            (None, None, None) => Some(format!("{} is being loaded", self.name())),
            (None, None, Some(cluster)) => cluster.instance.failure(),
        }
    }

    /// For people and programs.
    pub(super) fn running(&self, shared: &Shared) -> Running {
        let state = self.lock();
        let serves = state.serves.as_ref();
        let order = &self.declared.order;
        let context = order.context.unwrap_or_default();
        let failed = state.cluster.as_ref();
        Running {
            model: self.name().to_owned(),
            context_tokens: serves.map_or(context, |serves| serves.info.context_tokens),
            api: shared.api,
            stages: if state.stages.is_empty() {
                order.stages.iter().map(planned).collect()
            } else {
                state.stages.clone()
            },
            client: state.client.clone(),
            engine: serves.map_or(Engine::Stages, |serves| serves.engine),
            remark: serves.and_then(|serves| serves.remark.clone()),
            chats: serves.is_some_and(|serves| serves.template.is_some()),
            failure: state
                .failure
                .clone()
                .or_else(|| failed.and_then(|cluster| cluster.instance.failure())),
            waits: state.waits.clone(),
        }
    }

    /// Answers a question as whoever runs the model would; `show` gets the pieces. Gives the tokens
    /// of the prompt as well.
    pub(super) fn answer(
        &self,
        question: &str,
        max_tokens: u32,
        show: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<(usize, Told)> {
        if let Some(trouble) = self.trouble() {
            bail!("{trouble}");
        }
        let serves = self.serves().context("the model is being loaded")?;
        let said = [model::user(question)];
        let tokens = model::conversation(
            &said,
            serves.template.as_deref(),
            serves.backend.tokenizer(),
        )?;
        let prompt_tokens = tokens.len();
        let start = Instant::now();
        let prompt = Prompt::greedy(tokens, max_tokens, End::Respected);
        let mut answer = serves.backend.instance().submit(prompt)?;
        let told = output::stream(&mut answer, start, show)?;
        Ok((prompt_tokens, told))
    }

    fn attempt(&self, shared: &Shared, progress: &mut dyn FnMut(String)) -> anyhow::Result<Loaded> {
        let order = &self.declared.order;
        // Without its nodes nothing needs to be read.
        let seats = seats(shared, &self.declared)?;
        let mut source = shared.open(order)?;
        let context_tokens = model::context(&source, order.context)?;
        let (mut placement, remark) = model::placement(&source, seats.len() as u32, order.engine)?;
        let engine = Engine::of(&placement);
        if engine == Engine::Stages {
            let stages = order.stages.iter().map(|stage| stage.layers);
            let ranges: Vec<Layers> = stages.map(Layers::from).collect();
            check_stages(source.header(), &ranges)?;
            placement = Placement::Stages(ranges);
        } else if source.is_hollow() {
            // llama.cpp's client reads all of the weights.
            let (client, cache) = (crate::hub::client(), brigade_node::cache_dir()?);
            source = brigade_node::fetch_model(&client, &order.model, &cache, |step| {
                progress(output::progress_text(&step));
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
        let mut spec = model::spec(source, placement, context_tokens, None)?;
        spec.threads = order.threads;
        spec.links = Links::Encrypted;
        let cluster = Cluster::start_on(&shared.daemon, &seats, &spec, &tokenizer, |step| {
            progress(output::progress_text(&step));
        })?;
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the first attempt tells.
pub(super) enum Step {
    Progress(String),
    Loaded,
    Failed(anyhow::Error),
}

/// Where the stages go; an error names what is waited for.
fn seats(shared: &Shared, declared: &Declared) -> anyhow::Result<Vec<Seat>> {
    let Declared { order, .. } = declared;
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

fn planned(stage: &PlacedStage) -> StageView {
    StageView {
        node: stage.node.clone(),
        layers: Some(Layers::new(stage.layers.0, stage.layers.1)),
        bytes: None,
        memory: None,
        pid: 0,
    }
}

fn view(node: &NodeInfo) -> StageView {
    StageView {
        node: node.name.clone(),
        layers: node.layers,
        bytes: node.bytes,
        memory: node.memory,
        pid: node.stage_pid,
    }
}
