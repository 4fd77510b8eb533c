//! One model that shall be loaded, from its declaration to its end.

mod start;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use brigade_api::{ChatTemplate, ModelInfo};
use brigade_gguf::Layers;
use brigade_hub::ModelRef;
use brigade_node::{BreakOff, Cluster, End, NodeError, NodeInfo, Prompt, child};

use super::declared::Declared;
use super::{Shared, without_folder};
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

/// How long whatever is left of a model that is not wanted any more may take to end.
const LEAVE: Duration = Duration::from_secs(5);

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
    /// Whether it is seen to, and this is its thread's.
    is_kept: bool,
    /// While it is being started.
    starting: Option<BreakOff>,
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

    /// Whether it is being loaded for the first time.
    pub(super) fn is_on_its_way(&self) -> bool {
        let state = self.lock();
        state.failure.is_none() && state.waits.is_none() && state.cluster.is_none()
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
        slot.lock().is_kept = true;
        thread::spawn(move || {
            slot.bring_back(&shared, &mut told);
            drop(told);
            slot.lock().is_kept = false;
            slot.changed.notify_all();
        });
    }

    fn bring_back(&self, shared: &Arc<Shared>, told: &mut impl FnMut(Step)) {
        let mut pause = SHORTEST;
        loop {
            let attempt = self.attempt(shared, &mut |line| told(Step::Progress(line)));
            match attempt {
                Ok(loaded) => {
                    pause = SHORTEST;
                    let Some(death) = self.run(loaded) else {
                        return;
                    };
                    shared.announce();
                    told(Step::Loaded);
                    let Some(how) = death() else { return };
                    self.fail(&how);
                    shared.announce();
                }
                Err(error) => {
                    let mut state = self.lock();
                    if state.ends {
                        return;
                    }
                    state.waits = Some(format!("{error:#}"));
                    drop(state);
                    shared.announce();
                    told(Step::Failed(error));
                }
            }
            let waited = self
                .changed
                .wait_timeout_while(self.lock(), pause, |state| !state.ends);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.ends {
                return;
            }
            pause = (pause * 2).min(LONGEST);
        }
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

    /// Ends it, also while it is being loaded.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.ends = true;
        state.serves = None;
        let (cluster, starting) = (state.cluster.take(), state.starting.take());
        drop(state);
        self.changed.notify_all();
        if let Some(starting) = starting {
            starting.now();
        }
        drop(cluster);
    }

    /// Ends it, and waits until what it took is free.
    pub(super) fn unload(&self, shared: &Shared) {
        self.stop();
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), LEAVE, |state| state.is_kept);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        shared.daemon.wait_until_free(self.name(), LEAVE);
    }

    /// What answers, if it was loaded at some time.
    pub(super) fn serves(&self) -> Option<Serves> {
        self.lock().serves.clone()
    }

    /// Why it cannot answer now, for clients.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.plain_trouble()?;
        Some(match &self.declared.order.model {
            ModelRef::Path(path) => without_folder(&trouble, path),
            _ => trouble,
        })
    }

    fn plain_trouble(&self) -> Option<String> {
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
        let break_off = BreakOff::default();
        {
            let mut state = self.lock();
            if state.ends {
                return Err(NodeError::BrokenOff.into());
            }
            state.starting = Some(break_off.clone());
        }
        let loaded = self.start(shared, &break_off, progress);
        self.lock().starting = None;
        loaded
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
