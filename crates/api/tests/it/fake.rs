//! A backend that plays a script, and small helpers around a router.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode},
};
use brigade_api::{
    Backend, BackendError, ChatTemplate, Event, FinishReason, Generation, GenerationRequest, Load,
    ModelFacts, ModelInfo, Settings, router,
};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tower::ServiceExt;

pub(crate) const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\
    {% if 'forbidden' in m.content %}{{ raise_exception('not that word') }}{% endif %}\
    {% endfor %}<assistant>";

type Script = dyn Fn() -> Result<Generation, BackendError> + Send + Sync;

pub(crate) struct Fake {
    models: Vec<ModelInfo>,
    /// The models are there once somebody has wanted one for so long.
    loads_for: Option<Duration>,
    is_loaded: AtomicBool,
    unavailable: Option<String>,
    template: &'static str,
    /// What follows the system's message in the only prompt that fits.
    only_prompt: Option<&'static str>,
    script: Box<Script>,
    pub(crate) requests: Mutex<Vec<GenerationRequest>>,
}

impl Backend for Fake {
    fn models(&self) -> Vec<ModelInfo> {
        if self.loads_for.is_some() && !self.is_loaded.load(Relaxed) {
            return Vec::new();
        }
        self.models.clone()
    }

    async fn want(&self, model: &str) -> Result<(), BackendError> {
        match self.loads_for {
            Some(time) if self.models.iter().any(|info| info.id == model) => {
                tokio::time::sleep(time).await;
                self.is_loaded.store(true, Relaxed);
                Ok(())
            }
            _ => Err(BackendError::UnknownModel(model.to_owned())),
        }
    }

    fn load(&self) -> Result<Load, BackendError> {
        match &self.unavailable {
            Some(reason) => Err(BackendError::Unavailable(reason.clone())),
            None => Ok(Load {
                waiting: 3,
                active: 2,
            }),
        }
    }

    async fn generate(&self, request: GenerationRequest) -> Result<Generation, BackendError> {
        let fits = self
            .only_prompt
            .is_none_or(|end| format!("{:?}", request.prompt).contains(&format!("<system>s{end}")));
        self.requests.lock().unwrap().push(request);
        if fits {
            return (self.script)();
        }
        Err(BackendError::ContextExceeded {
            prompt_tokens: Some(600),
            context_tokens: 512,
        })
    }
}

impl Fake {
    pub(crate) fn new(
        script: impl Fn() -> Result<Generation, BackendError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::with_models(&["tiny"], script)
    }

    pub(crate) fn with_models(
        ids: &[&str],
        script: impl Fn() -> Result<Generation, BackendError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let models = ids.iter().map(|&id| ModelInfo {
            id: id.to_owned(),
            created: 1_700_000_000,
            context_tokens: 512,
            facts: ModelFacts {
                architecture: "llama".to_owned(),
                size_bytes: 98_000_000,
                parameters: 134_515_008,
                quantization: Some("Q4_1".to_owned()),
            },
        });
        Arc::new(Self {
            models: models.collect(),
            loads_for: None,
            is_loaded: AtomicBool::new(false),
            unavailable: None,
            template: TEMPLATE,
            only_prompt: None,
            script: Box::new(script),
            requests: Mutex::default(),
        })
    }

    /// Answers `Hello, world` in three pieces.
    pub(crate) fn hello() -> Arc<Self> {
        Self::new(|| {
            let (generation, sender) = open();
            for (text, tokens) in [("Hello", 1), (", ", 3), ("world\n\"é\"", 5)] {
                send_text(&sender, text, tokens);
            }
            sender
                .send(Event::Done {
                    reason: FinishReason::Stop,
                    completion_tokens: 6,
                })
                .unwrap();
            Ok(generation)
        })
    }

    /// Answers with these pieces, a token each.
    pub(crate) fn saying(template: &'static str, pieces: &'static [&'static str]) -> Arc<Self> {
        let fake = Self::new(move || {
            let (generation, sender) = open();
            for (tokens, text) in (1..).zip(pieces) {
                send_text(&sender, text, tokens);
            }
            let reason = FinishReason::Stop;
            let completion_tokens = pieces.len() as u32;
            let done = Event::Done {
                reason,
                completion_tokens,
            };
            sender.send(done).unwrap();
            Ok(generation)
        });
        let mut fake = Arc::into_inner(fake).unwrap();
        fake.template = template;
        Arc::new(fake)
    }

    /// The same, once a request for its model has waited for so long.
    pub(crate) fn loading_for(self: Arc<Self>, time: Duration) -> Arc<Self> {
        let mut fake = Arc::into_inner(self).unwrap();
        fake.loads_for = Some(time);
        Arc::new(fake)
    }

    /// Has room for a prompt only that goes on like this after the system's message.
    pub(crate) fn short_context(prompt: &'static str) -> Arc<Self> {
        let mut fake = Arc::into_inner(Self::hello()).unwrap();
        fake.only_prompt = Some(prompt);
        Arc::new(fake)
    }

    /// Can answer nothing.
    pub(crate) fn unavailable(reason: &str) -> Arc<Self> {
        let fake = Self::refusing(BackendError::Unavailable(reason.to_owned()));
        let mut fake = Arc::into_inner(fake).unwrap();
        fake.unavailable = Some(reason.to_owned());
        Arc::new(fake)
    }

    /// Refuses every request.
    pub(crate) fn refusing(error: BackendError) -> Arc<Self> {
        Self::new(move || Err(error.clone()))
    }

    pub(crate) fn router(self: &Arc<Self>) -> Router {
        self.router_with(Settings::default())
    }

    pub(crate) fn router_with(self: &Arc<Self>, settings: Settings) -> Router {
        let template = ChatTemplate::new(self.template, "", "").unwrap();
        router(Arc::clone(self), Some(template), settings)
    }
}

/// A fake that says one word, and the other ends of its generations.
pub(crate) fn held() -> (Arc<Fake>, UnboundedReceiver<UnboundedSender<Event>>) {
    let (started, generations) = unbounded_channel();
    let started = Mutex::new(started);
    let fake = Fake::new(move || {
        let (generation, sender) = open();
        send_text(&sender, "word", 1);
        started.lock().unwrap().send(sender).unwrap();
        Ok(generation)
    });
    (fake, generations)
}

/// A generation of a prompt of 11 tokens and the side that plays its events.
pub(crate) fn open() -> (Generation, UnboundedSender<Event>) {
    let (sender, events) = unbounded_channel();
    let generation = Generation {
        prompt_tokens: 11,
        account: None,
        events,
    };
    (generation, sender)
}

pub(crate) fn send_text(sender: &UnboundedSender<Event>, text: &str, tokens: u32) {
    sender
        .send(Event::Text {
            text: text.to_owned(),
            tokens,
            logprob: None,
        })
        .unwrap();
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    /// The body as JSON, without what differs from run to run.
    pub(crate) fn json(&self) -> Value {
        redact(serde_json::from_str(&self.body).unwrap())
    }

    /// The data of a stream's events, JSON where it is.
    pub(crate) fn events(&self) -> Vec<Value> {
        assert!(self.body.ends_with("\n\n"), "{:?}", self.body);
        let events = self.body.split_terminator("\n\n").map(|event| {
            let data = event.strip_prefix("data: ").unwrap();
            serde_json::from_str(data).map_or_else(|_| json!(data), redact)
        });
        events.collect()
    }
}

fn redact(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut()
        && object.contains_key("choices")
    {
        let id = object["id"].as_str().unwrap();
        let (prefix, random) = id.split_once('-').unwrap();
        assert_eq!(random.len(), 32);
        object["id"] = json!(format!("{prefix}-ID"));
        assert!(object["created"].as_u64().unwrap() > 1_700_000_000);
        object["created"] = json!(0);
        assert_eq!(
            object["system_fingerprint"],
            concat!("brigade-", env!("CARGO_PKG_VERSION"))
        );
        object["system_fingerprint"] = json!("brigade-VERSION");
        if let Some(timings) = object.get_mut("timings") {
            for name in ["queue_ms", "prefill_ms", "decode_ms"] {
                assert!(timings[name].as_f64().unwrap() >= 0.0);
                timings[name] = json!(0);
            }
        }
    }
    value
}

pub(crate) async fn call(router: Router, request: Request<Body>) -> Reply {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Reply {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

pub(crate) async fn get(router: Router, path: &str) -> Reply {
    call(router, Request::get(path).body(Body::empty()).unwrap()).await
}

pub(crate) async fn post(router: Router, path: &str, body: impl Into<Body>) -> Reply {
    let request = Request::post(path).header("content-type", "application/json; charset=utf-8");
    call(router, request.body(body.into()).unwrap()).await
}

/// A chat request that says `hi`, with `extra` members.
pub(crate) async fn chat(router: Router, extra: Value) -> Reply {
    let base = json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]});
    post(
        router,
        "/v1/chat/completions",
        merged(base, extra).to_string(),
    )
    .await
}

/// A completion request for `Once`, with `extra` members.
pub(crate) async fn complete(router: Router, extra: Value) -> Reply {
    let base = json!({"model": "tiny", "prompt": "Once"});
    post(router, "/v1/completions", merged(base, extra).to_string()).await
}

fn merged(mut base: Value, extra: Value) -> Value {
    if let (Value::Object(base), Value::Object(extra)) = (&mut base, extra) {
        base.extend(extra);
    }
    base
}
