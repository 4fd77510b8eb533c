//! A gateway before a process that has the models, with a wire between them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::Router;
use brigade_api::{
    Backend, BackendError, BoxedStream, ChatTemplate, Connection, Generation, GenerationRequest,
    Load, ModelInfo, Settings, inner_router, router, serve_inside,
};
use tokio::{
    io::{copy_bidirectional, duplex},
    sync::mpsc,
    task::JoinHandle,
};

use crate::fake::{Fake, TEMPLATE};

/// Has no model of its own.
pub(crate) struct Gateway {
    models: Vec<ModelInfo>,
    connections: mpsc::UnboundedSender<BoxedStream>,
    pub(crate) connected: AtomicUsize,
    /// What carries the bytes of each connection.
    pub(crate) wires: Mutex<Vec<JoinHandle<()>>>,
}

impl Backend for Gateway {
    fn models(&self) -> Vec<ModelInfo> {
        self.models.clone()
    }

    fn is_elsewhere(&self, model: &str) -> bool {
        self.models.iter().any(|info| info.id == model)
    }

    async fn connect(&self, _: &str) -> Result<Connection, BackendError> {
        self.connected.fetch_add(1, Ordering::Relaxed);
        let ((near, mut left), (mut right, far)) = (duplex(4096), duplex(4096));
        let wire = tokio::spawn(async move {
            copy_bidirectional(&mut left, &mut right).await.unwrap();
        });
        self.wires.lock().unwrap().push(wire);
        let sent = self.connections.send(Box::new(far));
        sent.map_err(|_| BackendError::Unavailable("far cannot be reached".to_owned()))?;
        Ok(Connection {
            node: "far".to_owned(),
            stream: Box::new(near),
        })
    }

    async fn want(&self, model: &str) -> Result<(), BackendError> {
        match model {
            "lost" => Err(BackendError::Unavailable("far is not up".to_owned())),
            other => Err(BackendError::UnknownModel(other.to_owned())),
        }
    }

    fn load(&self) -> Result<Load, BackendError> {
        Ok(Load {
            waiting: 0,
            active: 0,
        })
    }

    async fn generate(&self, _: GenerationRequest) -> Result<Generation, BackendError> {
        panic!("the model is elsewhere");
    }
}

/// A gateway before a process whose models a fake has.
pub(crate) struct Pair {
    pub(crate) gateway: Arc<Gateway>,
}

impl Pair {
    pub(crate) fn new(fake: &Arc<Fake>) -> Self {
        let template = ChatTemplate::new(TEMPLATE, "", "").unwrap();
        let inner = inner_router(Arc::clone(fake), Some(template), Settings::default());
        let (connections, inside) = mpsc::unbounded_channel();
        tokio::spawn(serve_inside(inside, inner, std::future::pending()));
        Self {
            gateway: Arc::new(Gateway {
                models: fake.models(),
                connections,
                connected: AtomicUsize::new(0),
                wires: Mutex::default(),
            }),
        }
    }

    pub(crate) fn router(&self) -> Router {
        self.router_with(Settings::default())
    }

    pub(crate) fn router_with(&self, settings: Settings) -> Router {
        router(Arc::clone(&self.gateway), None, settings)
    }
}
