//! The HTTP side's [`Backend`] on an [`Instance`].

use std::time::{SystemTime, UNIX_EPOCH};

use brigade_api::{
    Backend, BackendError, Event, FinishReason, Generation, GenerationRequest, ModelInfo, Prompt,
};
use brigade_engine::scheduler::{FinishReason as EngineReason, SubmitError};
use brigade_node::{Answer, End, Event as NodeEvent, Instance, NodeError, Text, Tokenizer};
use tokio::sync::mpsc;

/// One model that this process serves.
#[derive(Debug)]
pub(crate) struct LocalBackend {
    instance: Instance,
    tokenizer: Tokenizer,
    model: ModelInfo,
}

impl LocalBackend {
    pub(crate) fn new(
        instance: Instance,
        tokenizer: Tokenizer,
        id: String,
        context_tokens: u32,
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
            },
        }
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
        let tokenizer = self.tokenizer.clone();
        let tokens = tokio::task::spawn_blocking(move || tokenizer.tokenize(text))
            .await
            .map_err(|error| BackendError::Internal(error.to_string()))?
            .map_err(|error| self.error(error))?;
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
                visible: Vec::new(),
            })
            .map_err(|error| self.error(error))?;
        let (sender, events) = mpsc::unbounded_channel();
        tokio::spawn(forward(answer, sender));
        Ok(Generation {
            prompt_tokens,
            events,
        })
    }
}

/// Passes events on until the answer ends or nobody listens; dropping the answer cancels it.
async fn forward(mut answer: Answer, sender: mpsc::UnboundedSender<Event>) {
    let mut tokens = 0;
    loop {
        let event = tokio::select! {
            event = answer.next() => event,
            () = sender.closed() => return,
        };
        let (event, over) = match event {
            Some(NodeEvent::Token { text, .. }) => {
                tokens += 1;
                (Event::Text { text, tokens }, false)
            }
            Some(NodeEvent::Started) => continue,
            Some(NodeEvent::Done { text, reason, .. }) => {
                if !text.is_empty() {
                    let _ = sender.send(Event::Text { text, tokens });
                }
                let reason = match reason {
                    EngineReason::Stop => FinishReason::Stop,
                    EngineReason::Length => FinishReason::Length,
                };
                (
                    Event::Done {
                        reason,
                        completion_tokens: tokens,
                    },
                    true,
                )
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
