//! From a request, whatever dialect it came in, to a [`Run`].

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::http::StatusCode;
use tokio::time::Instant;

use crate::{
    Backend, BackendError, ChatMessage, ChatTemplate, Generation, GenerationRequest, ModelInfo,
    Prompt, Role, TemplateError,
    error::ApiError,
    forward,
    grammar::{Grammar, SchemaError, Thought},
    metrics::Metrics,
    reasoning::{self, Splitter},
    request::{ChatRequest, CompletionRequest, Options, ResponseFormat},
    routes::access,
    run::{Reader, Run},
    tools::{Format, Parser, Support, Tool, ToolChoice},
};

/// What all routes share.
pub(crate) struct Gateway<B> {
    pub(crate) backend: Arc<B>,
    pub(crate) template: Option<Arc<ChatTemplate>>,
    pub(crate) metrics: Arc<Metrics>,
    /// How long a request may take.
    pub(crate) timeout: Option<Duration>,
}

/// What a chat request asks of the model beyond its prompt.
struct Plan {
    grammar: Option<String>,
    /// The tools that may be called, and how.
    calls: Option<(Format, Vec<Tool>, usize)>,
    thinks: bool,
}

impl<B: Backend> Gateway<B> {
    /// The model of that id, or the only one where a request names none.
    pub(crate) fn find(&self, asked: Option<String>) -> Result<ModelInfo, ApiError> {
        let mut models = self.backend.models();
        let Some(asked) = asked else {
            return match (models.pop(), models.len()) {
                (Some(only), 0) => Ok(only),
                _ => Err(ApiError::invalid("model", "model is required")),
            };
        };
        if let Some(index) = models.iter().position(|model| model.id == asked) {
            return Ok(models.swap_remove(index));
        }
        let ids: Vec<_> = models.into_iter().map(|model| model.id).collect();
        Err(ApiError::unknown_model(&asked, &ids))
    }

    /// The same for a request, which may need a context of some length.
    fn model(&self, options: &Options) -> Result<String, ApiError> {
        let model = self.find(options.model.clone())?;
        match options.context_tokens {
            Some(asked) if asked > model.context_tokens => Err(ApiError::unsupported(
                "num_ctx",
                format!(
                    "the model was loaded with a context of {} tokens, {asked} were asked for",
                    model.context_tokens
                ),
            )),
            _ => Ok(model.id),
        }
    }

    /// Starts a text that goes on as it likes.
    pub(crate) async fn complete(&self, request: CompletionRequest) -> Result<Run, ApiError> {
        let arrived = forward::arrived();
        let CompletionRequest { options, prompt } = request;
        let model = self.model(&options)?;
        let first = generation_request(&model, Prompt::Raw(prompt), &options, None, &[]);
        let generation = self.backend.generate(first.clone()).await?;
        self.run(arrived, &options, first, generation, &Reader::plain)
            .await
    }

    /// A model's chat template, if it has one.
    pub(crate) fn template(&self, model: &str) -> Option<Arc<ChatTemplate>> {
        let own = self.backend.template(model);
        own.or_else(|| self.template.clone())
    }

    /// Starts an answer to a conversation.
    pub(crate) async fn chat(&self, mut request: ChatRequest) -> Result<Run, ApiError> {
        let arrived = forward::arrived();
        let model = self.model(&request.options)?;
        let template = self.template(&model).ok_or_else(|| {
            ApiError::client(
                StatusCode::BAD_REQUEST,
                Some("chat_template"),
                "the model has no chat template; use /v1/completions",
            )
        })?;
        check_thinking(&template, request.think)?;
        loop {
            let prompt = render(&template, &request).await?;
            let plan = plan(&template, &request, &prompt)?;
            let reader = || {
                let splitter = if plan.thinks {
                    Splitter::after(&prompt)
                } else {
                    Splitter::off()
                };
                let parser = plan
                    .calls
                    .as_ref()
                    .map(|(format, tools, most)| Parser::new(*format, tools, *most));
                Reader::new(splitter, parser)
            };
            let visible = plan
                .calls
                .as_ref()
                .map_or_else(Vec::new, |(format, ..)| format.visible());
            let first = generation_request(
                &model,
                Prompt::Rendered(prompt.clone()),
                &request.options,
                plan.grammar.clone(),
                &visible,
            );
            match self.backend.generate(first.clone()).await {
                Ok(generation) => {
                    return self
                        .run(arrived, &request.options, first, generation, &reader)
                        .await;
                }
                Err(BackendError::ContextExceeded { .. })
                    if request.truncate && drop_oldest(&mut request.messages) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The run of a first choice that was accepted and of the others.
    async fn run(
        &self,
        arrived: Instant,
        options: &Options,
        first: GenerationRequest,
        generation: Generation,
        reader: &(dyn Fn() -> Reader + Sync),
    ) -> Result<Run, ApiError> {
        let mut run = Run::new(
            first.model.clone(),
            arrived,
            self.timeout,
            Arc::clone(&self.metrics),
        );
        run.add(generation, reader());
        for choice in 1..options.choices {
            let mut request = first.clone();
            // The first choice is what the seed gives alone.
            request.sampling.seed = request.sampling.seed.wrapping_add(u64::from(choice));
            let generation = self.backend.generate(request).await?;
            run.add(generation, reader());
        }
        Ok(run)
    }
}

fn generation_request(
    model: &str,
    prompt: Prompt,
    options: &Options,
    grammar: Option<String>,
    visible: &[&'static str],
) -> GenerationRequest {
    let mut sampling = options.sampling.clone();
    sampling.grammar = grammar;
    GenerationRequest {
        model: model.to_owned(),
        prompt,
        user: access::owner(),
        max_tokens: options.max_tokens,
        sampling,
        stop: options.stop.clone(),
        visible: visible.to_vec(),
        logprobs: options.logprobs,
    }
}

/// Templates are somebody else's programs: they run where they hold up no other request.
async fn render(template: &Arc<ChatTemplate>, request: &ChatRequest) -> Result<String, ApiError> {
    let template = Arc::clone(template);
    let messages = request.messages.clone();
    let tools: Vec<_> = match request.tool_choice {
        ToolChoice::None => Vec::new(),
        _ => request
            .tools
            .iter()
            .map(|tool| tool.declaration.clone())
            .collect(),
    };
    let think = request.think;
    let render = move || template.render(&messages, &tools, think, SystemTime::now());
    tokio::task::spawn_blocking(render)
        .await
        .map_err(|error| ApiError::internal(format!("the chat template: {error}")))?
        .map_err(|error: TemplateError| error.into())
}

/// Whether the model can do as it is told: think, or not.
fn check_thinking(template: &ChatTemplate, think: Option<bool>) -> Result<(), ApiError> {
    let refuse = |message| Err(ApiError::unsupported("think", message));
    match think {
        Some(true) if !template.thinks() => refuse("the model does not think aloud"),
        Some(false) if template.thinks() && !template.thinks_by_choice() => {
            refuse("the model cannot be kept from thinking aloud")
        }
        _ => Ok(()),
    }
}

/// Removes the oldest turn that is no instruction. False if only the last one is left.
fn drop_oldest(messages: &mut Vec<ChatMessage>) -> bool {
    let turns: Vec<usize> = (0..messages.len())
        .filter(|&index| messages[index].role == Role::User)
        .collect();
    let [first, second, ..] = turns[..] else {
        return false;
    };
    messages.drain(first..second);
    true
}

fn plan(template: &ChatTemplate, request: &ChatRequest, prompt: &str) -> Result<Plan, ApiError> {
    let thought = if template.thinks() && reasoning::begins_thinking(prompt) {
        Thought::Open
    } else {
        Thought::None
    };
    let format = call_format(template, request)?;
    let (grammar, calls) = match format {
        None => (response_grammar(&request.format, thought)?, None),
        Some(format) => {
            let grammar = call_grammar(format, request, thought)?;
            let most = if request.parallel_tool_calls {
                usize::MAX
            } else {
                1
            };
            (grammar, Some((format, request.tools.clone(), most)))
        }
    };
    Ok(Plan {
        grammar,
        calls,
        thinks: template.thinks(),
    })
}

/// How the answer may call tools; `None` where it may not.
fn call_format(template: &ChatTemplate, request: &ChatRequest) -> Result<Option<Format>, ApiError> {
    if request.tools.is_empty() || request.tool_choice == ToolChoice::None {
        return Ok(None);
    }
    match template.tools() {
        Support::Calls(format) => Ok(Some(format)),
        Support::None => Err(ApiError::unsupported(
            "tools",
            "the model's chat template has no tools",
        )),
        Support::UnknownFormat => Err(ApiError::unsupported(
            "tools",
            "the model writes tool calls in a form that is not supported",
        )),
    }
}

fn response_grammar(format: &ResponseFormat, thought: Thought) -> Result<Option<String>, ApiError> {
    let mut grammar = Grammar::new();
    let root = match format {
        ResponseFormat::Text => return Ok(None),
        ResponseFormat::JsonObject => "object".to_owned(),
        ResponseFormat::JsonSchema(schema) => grammar
            .schema(schema)
            .map_err(|error| bad_schema("response_format.json_schema.schema", &error))?,
    };
    Ok(Some(grammar.finish(&root, thought)))
}

/// The grammar of an answer that must call, or may call a strict function; any other that may
/// call is read as it comes.
fn call_grammar(
    format: Format,
    request: &ChatRequest,
    thought: Thought,
) -> Result<Option<String>, ApiError> {
    let mut grammar = Grammar::new();
    let parallel = request.parallel_tool_calls;
    let all: Vec<&Tool> = request.tools.iter().collect();
    let root = match &request.tool_choice {
        ToolChoice::Required => format.required(&mut grammar, &all, parallel),
        ToolChoice::Named(name) => {
            let named = all.into_iter().filter(|tool| tool.name == *name);
            format.required(&mut grammar, &named.collect::<Vec<_>>(), false)
        }
        ToolChoice::Auto | ToolChoice::None => {
            if request.format != ResponseFormat::Text {
                return Err(ApiError::unsupported(
                    "response_format",
                    "response_format cannot be kept while tools may be called; leave out tools \
                     or set tool_choice to 'none'",
                ));
            }
            if !all.iter().any(|tool| tool.strict) {
                return Ok(None);
            }
            format.optional(&mut grammar, &all, parallel)
        }
    };
    let root = root.map_err(|error| bad_schema("tools", &error))?;
    Ok(Some(grammar.finish(&root, thought)))
}

fn bad_schema(param: &str, error: &SchemaError) -> ApiError {
    ApiError::unsupported(
        param,
        format!("the schema of {param} cannot be kept: {error}"),
    )
}
