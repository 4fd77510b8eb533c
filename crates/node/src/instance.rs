//! A model that serves: the chain of its stages, the scheduler and the answers in the making.
//!
//! There is no scheduler thread. Whoever changes what can run next (a caller that submits, the
//! thread that receives results) takes the lock, asks the scheduler for steps and sends them, so
//! that nothing is handed over between threads on the way of a token.

mod types;
mod watch;

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use brigade_engine::ledger::Ledger;
use brigade_engine::sampling::Sampled;
use brigade_engine::scheduler::{
    Event as SchedulerEvent, FinishReason, Load, Measured, Request, RequestId, Scheduler,
    SchedulerConfig,
};
use brigade_engine::text::TextStream;
use brigade_wire::frame::{FrameReader, FrameWriter};
use brigade_wire::{Message, StepResult, Token};
use tokio::sync::mpsc;

use crate::NodeError;
use crate::chain::{self, Chain, ChainSpec};
use crate::link::Link;
use crate::tokenizer::VocabularyFacts;
pub use types::{Account, End, Event, Prompt};

/// A model with its chain. Clones share it; dropping the last one closes the chain.
#[derive(Debug, Clone)]
pub struct Instance {
    shared: Arc<Shared>,
    _close: Arc<CloseOnDrop>,
}

/// An answer in the making; dropping it cancels the rest.
#[derive(Debug)]
pub struct Answer {
    events: mpsc::UnboundedReceiver<Event>,
    id: RequestId,
    account: Account,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    vocabulary: Arc<VocabularyFacts>,
    streams: [TcpStream; 2],
}

#[derive(Debug)]
struct State {
    scheduler: Scheduler,
    ledger: Ledger,
    /// Where the scheduler's time begins.
    begin: Instant,
    sender: FrameWriter<Link>,
    answers: HashMap<RequestId, Open>,
    next_id: u64,
    failure: Option<String>,
}

/// The sending side of an answer.
#[derive(Debug)]
struct Open {
    events: mpsc::UnboundedSender<Event>,
    text: TextStream,
    visible: Vec<Token>,
    account: Account,
}

/// See [`Instance::watcher`].
#[derive(Debug)]
pub(crate) struct Watcher(Arc<Shared>);

impl Watcher {
    /// Ends the instance.
    pub(crate) fn fail(&self, reason: &str) {
        self.0.fail(reason);
    }
}

#[derive(Debug)]
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.fail("the instance was closed");
    }
}

impl Instance {
    /// Builds the chain and starts to serve. `scheduler` must suit the chain's parameters.
    /// `explain` turns what this side sees when the chain breaks into what really happened.
    pub(crate) fn open(
        spec: &ChainSpec,
        scheduler: SchedulerConfig,
        vocabulary: Arc<VocabularyFacts>,
        explain: impl FnOnce(String) -> String + Send + 'static,
    ) -> Result<Self, NodeError> {
        let Chain {
            sender,
            mut receiver,
            streams,
        } = chain::open(spec)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                scheduler: Scheduler::new(scheduler),
                ledger: Ledger::default(),
                begin: Instant::now(),
                sender,
                answers: HashMap::new(),
                next_id: 0,
                failure: None,
            }),
            vocabulary,
            streams,
        });
        let receiving = Arc::clone(&shared);
        let row = spec.vocabulary as usize;
        thread::spawn(move || {
            let failure = receiving.receive(&mut receiver, row);
            // Where this side has closed the chain, it knows why.
            let own = receiving.lock().failure.clone();
            receiving.fail(&explain(own.unwrap_or(failure)));
        });
        let watched = Arc::downgrade(&shared);
        thread::spawn(move || watch::watch(&watched, watch::LOOK_EVERY));
        Ok(Self {
            _close: Arc::new(CloseOnDrop(Arc::clone(&shared))),
            shared,
        })
    }

    /// Queues a prompt.
    pub fn submit(&self, prompt: Prompt) -> Result<Answer, NodeError> {
        let (sender, events) = mpsc::unbounded_channel();
        let mut state = self.shared.lock();
        if let Some(failure) = &state.failure {
            return Err(NodeError::Chain(failure.clone()));
        }
        let id = RequestId(state.next_id);
        let stop_tokens = match prompt.end {
            End::Respected => self.shared.vocabulary.end_of_generation.as_slice().into(),
            End::Ignored => Arc::default(),
        };
        state.scheduler.submit(Request {
            id,
            user: prompt.user,
            prompt: prompt.tokens,
            max_tokens: prompt.max_tokens,
            sampling: prompt.sampling,
            stop_tokens,
            want_logits: prompt.want_logits,
        })?;
        state.next_id += 1;
        let account = Account::new(state.begin);
        state.answers.insert(
            id,
            Open {
                events: sender,
                text: TextStream::new(prompt.stop),
                visible: prompt.visible,
                account: account.clone(),
            },
        );
        state.send_steps();
        drop(state);
        Ok(Answer {
            events,
            id,
            account,
            shared: Arc::clone(&self.shared),
        })
    }

    /// Ends every answer and all that come later with this reason.
    pub fn fail(&self, reason: &str) {
        self.shared.fail(reason);
    }

    /// A handle for whoever may have to end the instance; it does not keep the instance open.
    pub(crate) fn watcher(&self) -> Watcher {
        Watcher(Arc::clone(&self.shared))
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        self.shared.lock().scheduler.load()
    }

    /// What every stage and the links take, and how many steps are in flight because of it.
    pub fn measured(&self) -> Measured {
        self.shared.lock().scheduler.measured()
    }

    /// Why nothing is served any more, if so.
    pub fn failure(&self) -> Option<String> {
        self.shared.lock().failure.clone()
    }
}

impl Answer {
    /// Where its time goes.
    pub fn account(&self) -> Account {
        self.account.clone()
    }

    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The same for a thread that is not asynchronous.
    pub fn next_blocking(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.answers.remove(&self.id).is_some() {
            state.scheduler.cancel(self.id);
            state.send_steps();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles results until the chain breaks; returns why it did.
    fn receive(&self, receiver: &mut FrameReader<std::io::BufReader<Link>>, row: usize) -> String {
        loop {
            let result = match receiver.receive() {
                Ok(Message::Result(result)) => result,
                Ok(Message::Failed(failure)) => return failure.to_string(),
                Ok(_) => return "the last stage sent something else than a result".to_owned(),
                Err(error) => return format!("the last stage is gone: {error}"),
            };
            let mut state = self.lock();
            if let Err(failure) = state.take(&result, receiver.payload(), row, &self.vocabulary) {
                return failure;
            }
            state.send_steps();
        }
    }

    fn fail(&self, reason: &str) {
        let mut state = self.lock();
        if state.failure.is_none() {
            state.failure = Some(reason.to_owned());
        }
        state.scheduler.fail_all();
        for (_, open) in state.answers.drain() {
            let _ = open.events.send(Event::Failed(reason.to_owned()));
        }
        drop(state);
        for stream in &self.streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn now_us(&self) -> u64 {
        self.begin.elapsed().as_micros() as u64
    }

    /// Sends all steps that may be in flight now. A broken connection shows on the receiving side.
    fn send_steps(&mut self) {
        loop {
            let now_us = self.now_us();
            let Some(step) = self.scheduler.next_step(now_us) else {
                return;
            };
            let holder = |seq| self.scheduler.holder(seq);
            self.ledger.sent(&step, now_us, holder);
            for started in self.scheduler.take_started() {
                if let Some(open) = self.answers.get(&started.request) {
                    let cached_tokens = started.cached_tokens;
                    let _ = open.events.send(Event::Started { cached_tokens });
                }
            }
            if let Err(error) = self.sender.send(&Message::Step(step), &[]) {
                tracing::debug!(%error, "cannot send a step");
                return;
            }
        }
    }

    fn take(
        &mut self,
        result: &StepResult,
        logits: &[f32],
        row: usize,
        vocabulary: &VocabularyFacts,
    ) -> Result<(), String> {
        let now_us = self.now_us();
        let events = self
            .scheduler
            .on_result(result, now_us)
            .map_err(|error| error.to_string())?;
        let links = || self.scheduler.links();
        self.ledger
            .returned(result, now_us, links, |request, trip| {
                if let Some(open) = self.answers.get(&request) {
                    open.account.lock().charge(trip);
                }
            });
        for event in events {
            match event {
                SchedulerEvent::Token {
                    request,
                    token,
                    logprob,
                    logits_row,
                    top,
                } => {
                    let logits = logits_row
                        .and_then(|index| logits.get(index * row..(index + 1) * row))
                        .map(<[f32]>::to_vec);
                    let sampled = Sampled {
                        token,
                        logprob,
                        top,
                    };
                    self.deliver(request, sampled, logits, vocabulary);
                }
                SchedulerEvent::Failed { request, reason } => {
                    if let Some(open) = self.answers.remove(&request) {
                        let _ = open.events.send(Event::Refused(reason));
                    }
                }
                SchedulerEvent::Finished { request, reason } => {
                    if let Some(open) = self.answers.remove(&request) {
                        let _ = open.events.send(Event::Done {
                            text: open.text.finish(),
                            stop: None,
                            reason,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        request: RequestId,
        Sampled {
            token,
            logprob,
            top,
        }: Sampled,
        logits: Option<Vec<f32>>,
        vocabulary: &VocabularyFacts,
    ) {
        let Some(open) = self.answers.get_mut(&request) else {
            return;
        };
        let bytes = if open.visible.contains(&token) {
            vocabulary.text(token)
        } else {
            vocabulary
                .pieces
                .get(token as usize)
                .map_or(&[][..], Vec::as_slice)
        };
        let piece = open.text.push(bytes);
        let _ = open.events.send(Event::Token {
            token,
            logprob,
            top,
            text: piece.text,
            logits,
        });
        if piece.stopped {
            let _ = open.events.send(Event::Done {
                text: String::new(),
                stop: open.text.stop().map(str::to_owned),
                reason: FinishReason::Stop,
            });
            self.answers.remove(&request);
            self.scheduler.complete(request);
        }
    }
}

#[cfg(test)]
mod tests;
