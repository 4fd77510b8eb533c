//! A request at work: its choices, read into parts, whatever the dialect that asked.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, Sleep},
};
use tokio_stream::Stream;

use crate::{
    Account, Event, FinishReason, Generation, PhaseSpent, Spent, TokenLogprob,
    error::ApiError,
    metrics::{Metrics, Outcome},
    reasoning::{Piece, Splitter},
    tools::{self, Parser, ToolCall},
};

/// A part of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    Text(String),
    Thought(String),
    Call(ToolCall),
}

/// Why a choice ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    StopString(String),
    Length,
    ToolCalls,
}

/// Something that happened to a choice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// More of it; with log-probabilities there may be a token and no part.
    More {
        index: usize,
        parts: Vec<Part>,
        logprob: Option<TokenLogprob>,
    },
    /// It is complete.
    Finished { index: usize, finish: Finish },
}

/// Turns a choice's text into parts.
#[derive(Debug)]
pub(crate) struct Reader {
    splitter: Splitter,
    parser: Option<Parser>,
}

impl Reader {
    pub(crate) fn new(splitter: Splitter, parser: Option<Parser>) -> Self {
        Self { splitter, parser }
    }

    /// Everything is text.
    pub(crate) fn plain() -> Self {
        Self::new(Splitter::off(), None)
    }

    fn push(&mut self, text: &str) -> Vec<Part> {
        let mut pieces = Vec::new();
        self.splitter.push(text, &mut pieces);
        self.parse(pieces)
    }

    fn finish(&mut self) -> Vec<Part> {
        let mut pieces = Vec::new();
        self.splitter.finish(&mut pieces);
        let mut parts = self.parse(pieces);
        if let Some(parser) = &mut self.parser {
            let mut last = Vec::new();
            parser.finish(&mut last);
            parts.extend(last.into_iter().map(Part::from));
        }
        parts
    }

    fn parse(&mut self, pieces: Vec<Piece>) -> Vec<Part> {
        let mut parts = Vec::new();
        for piece in pieces {
            match (piece, &mut self.parser) {
                (Piece::Thought(text), _) => parts.push(Part::Thought(text)),
                (Piece::Text(text), None) => parts.push(Part::Text(text)),
                (Piece::Text(text), Some(parser)) => {
                    let mut found = Vec::new();
                    parser.push(&text, &mut found);
                    parts.extend(found.into_iter().map(Part::from));
                }
            }
        }
        parts
    }

    fn has_calls(&self) -> bool {
        self.parser.as_ref().is_some_and(Parser::has_calls)
    }
}

impl From<tools::Part> for Part {
    fn from(part: tools::Part) -> Self {
        match part {
            tools::Part::Text(text) => Self::Text(text),
            tools::Part::Call(call) => Self::Call(call),
        }
    }
}

#[derive(Debug)]
struct Choice {
    events: UnboundedReceiver<Event>,
    reader: Reader,
    /// Steps made and not taken: the end comes after the last parts.
    finish: Option<Finish>,
    tokens: u32,
    over: bool,
}

/// Tokens of a request.
#[expect(clippy::struct_field_names, reason = "OpenAI's names, all of tokens")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: u32,
    /// Those of the prompt that the first choice needed not read.
    pub(crate) cached_tokens: u32,
    /// Of all choices.
    pub(crate) completion_tokens: u32,
}

/// Where a request's time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Timing {
    /// Until a sequence was free.
    pub(crate) queue: Duration,
    /// From there to the first token: the prompt was read.
    pub(crate) prefill: Duration,
    /// From the first token to the end.
    pub(crate) decode: Duration,
}

impl Timing {
    /// The same with what the stages and the links had of it.
    pub(crate) fn divided(self, spent: Spent) -> [Phase; 2] {
        [
            Phase::new(self.prefill, spent.prefill),
            Phase::new(self.decode, spent.decode),
        ]
    }
}

/// What prefill or decode took, divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Phase {
    /// Computing, on each stage.
    pub(crate) stages: Vec<Duration>,
    /// On the links between them.
    pub(crate) network: Duration,
    /// All else: other steps came first, or other choices, or the text was made.
    pub(crate) waiting: Duration,
}

impl Phase {
    fn new(took: Duration, PhaseSpent { stages, network }: PhaseSpent) -> Self {
        let charged = network + stages.iter().sum::<Duration>();
        Self {
            stages,
            network,
            waiting: took.saturating_sub(charged),
        }
    }
}

/// The choices of one request. Dropping it cancels what is not done.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) model: String,
    prompt_tokens: u32,
    cached_tokens: u32,
    choices: Vec<Choice>,
    /// The choice that is asked first, so that all get their turn.
    turn: usize,
    arrived: Instant,
    /// When the first choice had a sequence, and its first token.
    started: Option<Instant>,
    first: Option<Instant>,
    ended: Option<Instant>,
    /// The first choice's.
    account: Option<Account>,
    /// When the request has taken too long.
    deadline: Option<(Duration, Pin<Box<Sleep>>)>,
    metrics: Arc<Metrics>,
    outcome: Outcome,
}

impl Run {
    /// `arrived` is when the request did, `timeout` how long it may take from there.
    pub(crate) fn new(
        model: String,
        arrived: Instant,
        timeout: Option<Duration>,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.begin();
        Self {
            model,
            prompt_tokens: 0,
            cached_tokens: 0,
            choices: Vec::new(),
            turn: 0,
            arrived,
            started: None,
            first: None,
            ended: None,
            account: None,
            deadline: timeout.map(|limit| {
                let sleep = tokio::time::sleep_until(arrived + limit);
                (limit, Box::pin(sleep))
            }),
            metrics,
            outcome: Outcome::Cancelled,
        }
    }

    pub(crate) fn add(&mut self, generation: Generation, reader: Reader) {
        if self.choices.is_empty() {
            self.prompt_tokens = generation.prompt_tokens;
            self.account = generation.account;
        }
        self.choices.push(Choice {
            events: generation.events,
            reader,
            finish: None,
            tokens: 0,
            over: false,
        });
    }

    pub(crate) fn choices(&self) -> usize {
        self.choices.len()
    }

    /// Whether every choice is complete and told.
    pub(crate) fn is_over(&self) -> bool {
        self.choices.iter().all(|choice| choice.over)
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            completion_tokens: self.choices.iter().map(|choice| choice.tokens).sum(),
        }
    }

    pub(crate) fn timing(&self) -> Timing {
        self.account().0
    }

    /// The same, with how prefill and decode are divided, where that was measured.
    pub(crate) fn account(&self) -> (Timing, Option<[Phase; 2]>) {
        let end = self.ended.unwrap_or_else(Instant::now);
        let measured = self.account.as_ref().map(Account::spent);
        let is_measured = measured.is_some();
        let spent = measured.unwrap_or_default();
        let started = spent.began.map(Instant::from_std).or(self.started);
        let started = started.unwrap_or(end);
        let first = spent.answered.map(Instant::from_std).or(self.first);
        let first = first.unwrap_or(end);
        let timing = Timing {
            queue: started.saturating_duration_since(self.arrived),
            prefill: first.saturating_duration_since(started),
            decode: end.saturating_duration_since(first),
        };
        (timing, is_measured.then(|| timing.divided(spent)))
    }

    fn take(&mut self, index: usize, event: Option<Event>) -> Result<Option<Step>, ApiError> {
        let choice = &mut self.choices[index];
        match event {
            Some(Event::Started { cached_tokens }) => {
                if index == 0 {
                    self.cached_tokens = cached_tokens;
                    self.started.get_or_insert_with(Instant::now);
                }
                Ok(None)
            }
            Some(Event::Text {
                text,
                tokens,
                logprob,
            }) => {
                if index == 0 {
                    // A backend that does not tell when it starts has not let anything wait.
                    self.started.get_or_insert(self.arrived);
                    self.first.get_or_insert_with(Instant::now);
                }
                choice.tokens = tokens;
                let parts = choice.reader.push(&text);
                Ok(
                    (!parts.is_empty() || logprob.is_some()).then_some(Step::More {
                        index,
                        parts,
                        logprob,
                    }),
                )
            }
            Some(Event::Done {
                reason,
                completion_tokens,
            }) => {
                choice.tokens = completion_tokens;
                let parts = choice.reader.finish();
                let finish = match reason {
                    FinishReason::Length => Finish::Length,
                    _ if choice.reader.has_calls() => Finish::ToolCalls,
                    FinishReason::Stop => Finish::Stop,
                    FinishReason::StopString(stop) => Finish::StopString(stop),
                };
                choice.finish = Some(finish);
                Ok((!parts.is_empty()).then_some(Step::More {
                    index,
                    parts,
                    logprob: None,
                }))
            }
            Some(Event::Failed(error)) => Err(error.into()),
            None => Err(ApiError::internal(
                "the generation ended without a result; try again",
            )),
        }
    }

    /// Cancels all choices.
    fn fail(&mut self, error: ApiError) -> ApiError {
        self.outcome = Outcome::Failed;
        for choice in &mut self.choices {
            choice.events.close();
            choice.over = true;
        }
        error
    }
}

impl Stream for Run {
    type Item = Result<Step, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some((limit, sleep)) = &mut this.deadline
            && this.choices.iter().any(|choice| !choice.over)
            && sleep.as_mut().poll(context).is_ready()
        {
            let error = ApiError::timeout(*limit);
            return Poll::Ready(Some(Err(this.fail(error))));
        }
        let (count, turn) = (this.choices.len(), this.turn);
        for index in (0..count).map(|offset| (turn + offset) % count) {
            loop {
                if let Some(finish) = this.choices[index].finish.take() {
                    this.choices[index].over = true;
                    if this.is_over() {
                        this.ended = Some(Instant::now());
                        this.outcome = Outcome::Done;
                    }
                    return Poll::Ready(Some(Ok(Step::Finished { index, finish })));
                }
                if this.choices[index].over {
                    break;
                }
                let Poll::Ready(event) = this.choices[index].events.poll_recv(context) else {
                    break;
                };
                match this.take(index, event) {
                    Ok(None) => {}
                    Ok(Some(step)) => {
                        this.turn = (index + 1) % count;
                        return Poll::Ready(Some(Ok(step)));
                    }
                    Err(error) => return Poll::Ready(Some(Err(this.fail(error)))),
                }
            }
        }
        if this.is_over() {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let (usage, (timing, phases)) = (self.usage(), self.account());
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let [prefill, decode] = phases.unwrap_or_else(|| timing.divided(Spent::default()));
        let stages = |phase: &Phase| -> Vec<f64> { phase.stages.iter().copied().map(ms).collect() };
        self.metrics.end(self.outcome, usage, timing);
        tracing::info!(
            model = %self.model,
            outcome = self.outcome.name(),
            prompt_tokens = usage.prompt_tokens,
            cached_tokens = usage.cached_tokens,
            completion_tokens = usage.completion_tokens,
            queue_ms = ms(timing.queue),
            prefill_ms = ms(timing.prefill),
            prefill_stages_ms = ?stages(&prefill),
            prefill_network_ms = ms(prefill.network),
            prefill_waiting_ms = ms(prefill.waiting),
            decode_ms = ms(timing.decode),
            decode_stages_ms = ?stages(&decode),
            decode_network_ms = ms(decode.network),
            decode_waiting_ms = ms(decode.waiting),
            "request"
        );
    }
}

/// A choice that is complete.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) text: String,
    pub(crate) thought: String,
    pub(crate) calls: Vec<ToolCall>,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) finish: Option<Finish>,
}

/// Waits for all choices.
pub(crate) async fn collect(run: &mut Run) -> Result<Vec<Message>, ApiError> {
    let mut messages: Vec<Message> = Vec::new();
    messages.resize_with(run.choices(), Message::default);
    while let Some(step) = tokio_stream::StreamExt::next(run).await {
        match step? {
            Step::More {
                index,
                parts,
                logprob,
            } => {
                let message = &mut messages[index];
                message.logprobs.extend(logprob);
                for part in parts {
                    match part {
                        Part::Text(text) => message.text.push_str(&text),
                        Part::Thought(text) => message.thought.push_str(&text),
                        Part::Call(call) => message.calls.push(call),
                    }
                }
            }
            Step::Finished { index, finish } => messages[index].finish = Some(finish),
        }
    }
    Ok(messages)
}
