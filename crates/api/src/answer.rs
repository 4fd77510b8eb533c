//! The shapes of an answer: one object, or the chunks of a stream.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    Json,
    response::{IntoResponse, Response, sse::Sse},
};
use serde::Serialize;

use crate::{
    Backend, Event, FinishReason, Generation, GenerationRequest,
    error::ApiError,
    request::{Delivery, random},
    sse::{self, AnswerStream},
};

/// Names the program that answered, as OpenAI's `system_fingerprint` does.
const FINGERPRINT: &str = concat!("brigade-", env!("CARGO_PKG_VERSION"));

/// Which of OpenAI's two shapes an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Chat,
    Completion,
}

/// What stands the same in every chunk of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
    delivery: Delivery,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[expect(clippy::struct_field_names, reason = "OpenAI's names")]
pub(crate) struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum UsageMember {
    /// Before the last chunk.
    Null,
    Counts(Usage),
}

/// One object or one chunk.
#[derive(Serialize)]
pub(crate) struct Envelope<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: Vec<Choice<'a>>,
    /// Absent from a stream that does not end with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageMember>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    #[serde(flatten)]
    body: Body<'a>,
    logprobs: (),
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Body<'a> {
    Message {
        role: &'static str,
        content: &'a str,
        refusal: (),
    },
    Delta {
        #[serde(skip_serializing_if = "Option::is_none")]
        role: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        content: Option<&'a str>,
    },
    Text(&'a str),
}

impl Usage {
    pub(crate) fn new(prompt_tokens: u32, completion_tokens: u32) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: u64::from(prompt_tokens) + u64::from(completion_tokens),
        }
    }
}

impl FinishReason {
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

impl Answer {
    fn new(kind: Kind, model: String, delivery: Delivery) -> Self {
        let prefix = match kind {
            Kind::Chat => "chatcmpl",
            Kind::Completion => "cmpl",
        };
        Self {
            kind,
            id: format!("{prefix}-{:016x}{:016x}", random(), random()),
            created: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            model,
            delivery,
        }
    }

    pub(crate) fn sends_usage(&self) -> bool {
        self.delivery == Delivery::StreamWithUsage
    }

    fn envelope<'a>(
        &'a self,
        object: &'static str,
        choices: Vec<Choice<'a>>,
        usage: Option<UsageMember>,
    ) -> Envelope<'a> {
        Envelope {
            id: &self.id,
            object: match self.kind {
                Kind::Chat => object,
                Kind::Completion => "text_completion",
            },
            created: self.created,
            model: &self.model,
            system_fingerprint: FINGERPRINT,
            choices,
            usage,
        }
    }

    fn chunk<'a>(&'a self, body: Body<'a>, reason: Option<FinishReason>) -> Envelope<'a> {
        let usage = self.sends_usage().then_some(UsageMember::Null);
        self.envelope("chat.completion.chunk", vec![choice(body, reason)], usage)
    }

    fn whole<'a>(&'a self, text: &'a str, reason: FinishReason, usage: Usage) -> Envelope<'a> {
        let body = match self.kind {
            Kind::Chat => Body::Message {
                role: "assistant",
                content: text,
                refusal: (),
            },
            Kind::Completion => Body::Text(text),
        };
        self.envelope(
            "chat.completion",
            vec![choice(body, Some(reason))],
            Some(UsageMember::Counts(usage)),
        )
    }

    /// The chunk before any text, which only a chat has.
    pub(crate) fn opening(&self) -> Option<Envelope<'_>> {
        (self.kind == Kind::Chat).then(|| {
            self.chunk(
                Body::Delta {
                    role: Some("assistant"),
                    content: Some(""),
                },
                None,
            )
        })
    }

    pub(crate) fn text<'a>(&'a self, text: &'a str) -> Envelope<'a> {
        let body = match self.kind {
            Kind::Chat => Body::Delta {
                role: None,
                content: Some(text),
            },
            Kind::Completion => Body::Text(text),
        };
        self.chunk(body, None)
    }

    pub(crate) fn finish(&self, reason: FinishReason) -> Envelope<'_> {
        let body = match self.kind {
            Kind::Chat => Body::Delta {
                role: None,
                content: None,
            },
            Kind::Completion => Body::Text(""),
        };
        self.chunk(body, Some(reason))
    }

    pub(crate) fn usage(&self, usage: Usage) -> Envelope<'_> {
        self.envelope(
            "chat.completion.chunk",
            Vec::new(),
            Some(UsageMember::Counts(usage)),
        )
    }
}

fn choice(body: Body<'_>, reason: Option<FinishReason>) -> Choice<'_> {
    Choice {
        index: 0,
        body,
        logprobs: (),
        finish_reason: reason.map(FinishReason::name),
    }
}

/// Generates and answers.
pub(crate) async fn respond<B: Backend>(
    backend: &B,
    request: GenerationRequest,
    kind: Kind,
    delivery: Delivery,
) -> Result<Response, ApiError> {
    let answer = Answer::new(kind, request.model.clone(), delivery);
    let generation = backend.generate(request).await?;
    match delivery {
        Delivery::Whole => whole(&answer, generation).await,
        Delivery::Stream | Delivery::StreamWithUsage => {
            Ok(Sse::new(AnswerStream::new(answer, generation))
                .keep_alive(sse::keep_alive())
                .into_response())
        }
    }
}

async fn whole(answer: &Answer, mut generation: Generation) -> Result<Response, ApiError> {
    let mut answer_text = String::new();
    while let Some(event) = generation.events.recv().await {
        match event {
            Event::Text { text, .. } => answer_text.push_str(&text),
            Event::Done {
                reason,
                completion_tokens,
            } => {
                let usage = Usage::new(generation.prompt_tokens, completion_tokens);
                return Ok(Json(answer.whole(&answer_text, reason, usage)).into_response());
            }
            Event::Failed(error) => return Err(error.into()),
        }
    }
    Err(cut_off())
}

/// The backend went away in the middle of an answer.
pub(crate) fn cut_off() -> ApiError {
    ApiError::internal("the generation ended without a result; try again")
}
