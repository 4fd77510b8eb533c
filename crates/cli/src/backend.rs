//! The HTTP side's [`Backend`] on an [`Instance`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use brigade_api::{
    Account, Backend, BackendError, Event, FinishReason, Generation, GenerationRequest, Likely,
    Load, ModelFacts, ModelInfo, PhaseSpent, Pipeline, Prompt, Spent, StepTime, TokenLogprob,
};
use brigade_engine::ledger;
use brigade_engine::scheduler::timing::Line;
use brigade_engine::scheduler::{FinishReason as EngineReason, SubmitError};
use brigade_node::{
    Answer, End, Event as NodeEvent, Instance, NodeError, Text, Tokenizer, VocabularyFacts,
};
use tokio::sync::mpsc;

/// One model that this process serves.
#[derive(Debug)]
pub(crate) struct LocalBackend {
    instance: Instance,
    tokenizer: Tokenizer,
    model: ModelInfo,
}

impl LocalBackend {
    /// The model that answers.
    pub(crate) fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Its tokenizer.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub(crate) fn new(
        instance: Instance,
        tokenizer: Tokenizer,
        id: String,
        context_tokens: u32,
        facts: ModelFacts,
    ) -> Self {
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self {
            instance,
            tokenizer,
            model: ModelInfo {
                id,
                created,
                context_tokens,
                facts,
            },
        }
    }

    /// What clients may know of it.
    pub(crate) fn info(&self) -> &ModelInfo {
        &self.model
    }

    /// What can be done with the tokenizer's process, away from the threads that serve.
    async fn prepare<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tokenizer) -> Result<T, NodeError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let tokenizer = self.tokenizer.clone();
        tokio::task::spawn_blocking(move || work(&tokenizer))
            .await
            .map_err(|error| BackendError::Internal(error.to_string()))?
            .map_err(|error| self.error(error))
    }

    fn error(&self, error: NodeError) -> BackendError {
        match error {
            NodeError::Submit(SubmitError::PromptTooLong { prompt_tokens, .. }) => {
                BackendError::ContextExceeded {
                    prompt_tokens: Some(prompt_tokens as u32),
                    context_tokens: self.model.context_tokens,
                }
            }
            NodeError::Submit(SubmitError::QueueFull { waiting }) => BackendError::Busy {
                queued: waiting,
                retry_after_s: 1,
            },
            NodeError::Submit(error) => BackendError::Invalid(error.to_string()),
            NodeError::Tokenize(reason) => BackendError::Invalid(reason),
            NodeError::Chain(reason) => BackendError::Unavailable(reason),
            error => BackendError::Internal(error.to_string()),
        }
    }
}

impl Backend for LocalBackend {
    fn models(&self) -> Vec<ModelInfo> {
        vec![self.model.clone()]
    }

    fn load(&self) -> Result<Load, BackendError> {
        if let Some(failure) = self.instance.failure() {
            return Err(BackendError::Unavailable(failure));
        }
        let load = self.instance.load();
        Ok(Load {
            waiting: load.waiting,
            active: load.active,
        })
    }

    fn pipelines(&self) -> Vec<(String, Pipeline)> {
        let measured = self.instance.measured();
        let seconds = |line: Line| StepTime {
            fixed_s: line.fixed_us / 1e6,
            token_s: line.token_us / 1e6,
        };
        let pipeline = Pipeline {
            groups: measured.plan.groups,
            chunks: measured.plan.chunks_beside,
            stages: measured.stages.into_iter().map(seconds).collect(),
            links: measured.links.map(seconds),
            drafted: measured.drafted,
            accepted: measured.accepted,
        };
        vec![(self.model.id.clone(), pipeline)]
    }

    async fn generate(&self, request: GenerationRequest) -> Result<Generation, BackendError> {
        if request.model != self.model.id {
            return Err(BackendError::UnknownModel(request.model));
        }
        let text = match request.prompt {
            Prompt::Rendered(text) => Text {
                text,
                add_special: false,
                parse_special: true,
            },
            Prompt::Raw(text) => Text {
                text,
                add_special: true,
                parse_special: false,
            },
        };
        let context_tokens = self.model.context_tokens;
        if self.tokenizer.fewest_tokens(&text.text) > context_tokens as usize {
            return Err(BackendError::ContextExceeded {
                prompt_tokens: None,
                context_tokens,
            });
        }
        let grammar = request.sampling.grammar.clone();
        let tokens = self
            .prepare(move |tokenizer| {
                // A grammar comes from a stranger's schema: only one that a child has survived
                // reaches the stage that every request shares.
                grammar.map_or(Ok(()), |grammar| tokenizer.check_grammar(grammar))?;
                tokenizer.tokenize(text)
            })
            .await?;
        let vocabulary = Arc::clone(self.tokenizer.facts());
        let visible = |text: &String| request.visible.contains(&text.as_str());
        let visible = vocabulary
            .control
            .iter()
            .filter(|(_, text)| visible(text))
            .map(|(token, _)| *token)
            .collect();
        let prompt_tokens = tokens.len() as u32;
        let answer = self
            .instance
            .submit(brigade_node::Prompt {
                tokens,
                max_tokens: request.max_tokens.unwrap_or(u32::MAX),
                sampling: request.sampling,
                stop: request.stop,
                end: End::Respected,
                want_logits: false,
                user: request.user.as_deref().map_or(0, user_number),
                visible,
            })
            .map_err(|error| self.error(error))?;
        let (sender, events) = mpsc::unbounded_channel();
        let account = answer.account();
        let logprobs = request.logprobs.then_some(vocabulary);
        tokio::spawn(forward(answer, logprobs, sender));
        Ok(Generation {
            prompt_tokens,
            account: Some(Account::new(move || spent(&account))),
            events,
        })
    }
}

fn spent(account: &brigade_node::Account) -> Spent {
    let spent = account.spent();
    let duration = |us: f64| Duration::from_secs_f64(us / 1e6);
    let phase = |phase: ledger::Phase| PhaseSpent {
        stages: phase.stages_us.into_iter().map(duration).collect(),
        network: duration(phase.network_us),
    };
    Spent {
        prefill: phase(spent.prefill),
        decode: phase(spent.decode),
        began: spent.begun_us.map(|us| account.moment(us)),
        answered: spent.answered_us.map(|us| account.moment(us)),
    }
}

/// The scheduler tells users apart by numbers; 0 is nobody in particular.
fn user_number(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Passes events on until the answer ends or nobody listens; dropping the answer cancels it.
/// With a vocabulary, every token brings its log-probability.
async fn forward(
    mut answer: Answer,
    logprobs: Option<Arc<VocabularyFacts>>,
    sender: mpsc::UnboundedSender<Event>,
) {
    let mut tokens = 0;
    loop {
        let event = tokio::select! {
            event = answer.next() => event,
            () = sender.closed() => return,
        };
        let (event, over) = match event {
            Some(NodeEvent::Started { cached_tokens }) => (Event::Started { cached_tokens }, false),
            Some(NodeEvent::Token {
                text,
                token,
                logprob,
                top,
                ..
            }) => {
                tokens += 1;
                let logprob = logprobs.as_deref().map(|vocabulary| {
                    let likely = |(token, logprob)| Likely {
                        bytes: vocabulary.text(token).to_vec(),
                        logprob,
                    };
                    TokenLogprob {
                        token: likely((token, logprob)),
                        top: top.into_iter().map(likely).collect(),
                    }
                });
                let event = Event::Text {
                    text,
                    tokens,
                    logprob,
                };
                (event, false)
            }
            Some(NodeEvent::Done { text, stop, reason }) => {
                if !text.is_empty() {
                    let _ = sender.send(Event::Text {
                        text,
                        tokens,
                        logprob: None,
                    });
                }
                let reason = match (stop, reason) {
                    (Some(stop), _) => FinishReason::StopString(stop),
                    (None, EngineReason::Stop) => FinishReason::Stop,
                    (None, EngineReason::Length) => FinishReason::Length,
                };
                let done = Event::Done {
                    reason,
                    completion_tokens: tokens,
                };
                (done, true)
            }
            Some(NodeEvent::Failed(reason)) => {
                (Event::Failed(BackendError::Unavailable(reason)), true)
            }
            Some(NodeEvent::Refused(reason)) => {
                (Event::Failed(BackendError::Invalid(reason)), true)
            }
            None => {
                let reason = "the answer ended without a reason".to_owned();
                (Event::Failed(BackendError::Internal(reason)), true)
            }
        };
        if sender.send(event).is_err() || over {
            return;
        }
    }
}
