//! The API's side of all models that are loaded.

use std::sync::Arc;

use brigade_api::{
    Backend, BackendError, ChatTemplate, Connection, Generation, GenerationRequest, Load,
    ModelInfo, Pipeline,
};

use super::Shared;
use super::slot::Slot;

const NOTHING: Load = Load {
    waiting: 0,
    active: 0,
};

/// All models of a cluster; a request names the one that it means.
#[derive(Debug)]
pub(super) struct Models(pub(super) Arc<Shared>);

impl Models {
    fn slots(&self) -> Vec<Arc<Slot>> {
        self.0.lock().clone()
    }

    fn find(&self, model: &str) -> Option<Arc<Slot>> {
        self.slots().into_iter().find(|slot| slot.name() == model)
    }
}

impl Backend for Models {
    /// Those of this node, then those of the others.
    fn models(&self) -> Vec<ModelInfo> {
        let slots = self.slots().into_iter();
        let mut models: Vec<_> = slots.filter_map(|slot| Some(slot.serves()?.info)).collect();
        let others = self.0.elsewhere().into_iter();
        for other in others.filter(|other| other.host.is_some()) {
            if let Some(info) = other.model.info
                && !models.iter().any(|model| model.id == info.id)
            {
                models.push(info);
            }
        }
        models
    }

    fn is_elsewhere(&self, model: &str) -> bool {
        self.find(model).is_none_or(|slot| slot.serves().is_none())
            && self
                .0
                .find_elsewhere(model)
                .is_some_and(|other| other.host.is_some())
    }

    async fn connect(&self, model: &str) -> Result<Connection, BackendError> {
        let (shared, model) = (Arc::clone(&self.0), model.to_owned());
        let connected = tokio::task::spawn_blocking(move || shared.connect(&model));
        connected
            .await
            .map_err(|error| BackendError::Internal(error.to_string()))?
    }

    async fn want(&self, model: &str) -> Result<(), BackendError> {
        self.0.want(model).await
    }

    fn template(&self, model: &str) -> Option<Arc<ChatTemplate>> {
        self.find(model)?.serves()?.template
    }

    /// A request would be taken if any model answers, here or elsewhere; what is counted is what
    /// is here.
    fn load(&self) -> Result<Load, BackendError> {
        let mut sum = None;
        let mut trouble = "no model is loaded: `brigade load` runs one".to_owned();
        for slot in self.slots() {
            let own = match (slot.trouble(), slot.serves()) {
                (None, Some(serves)) => serves.backend.load().map_err(|error| error.to_string()),
                (Some(reason), _) => Err(reason),
                (None, None) => continue,
            };
            match own {
                Ok(own) => {
                    let all = sum.get_or_insert(NOTHING);
                    all.waiting += own.waiting;
                    all.active += own.active;
                }
                Err(reason) => trouble = reason,
            }
        }
        if sum.is_none() {
            for other in self.0.elsewhere() {
                match (other.host, other.model.trouble) {
                    (Some(_), None) => sum = Some(NOTHING),
                    (Some(_), Some(reason)) => trouble = reason,
                    (None, _) => trouble = format!("{} is not up", other.node),
                }
            }
        }
        sum.ok_or(BackendError::Unavailable(trouble))
    }

    /// Of those of this node; the others' are measured there.
    fn pipelines(&self) -> Vec<(String, Pipeline)> {
        let slots = self.slots().into_iter();
        let serving = slots.filter(|slot| slot.trouble().is_none());
        let serving = serving.filter_map(|slot| slot.serves());
        serving
            .flat_map(|serves| serves.backend.pipelines())
            .collect()
    }

    async fn generate(&self, request: GenerationRequest) -> Result<Generation, BackendError> {
        let Some(slot) = self.find(&request.model) else {
            return Err(BackendError::UnknownModel(request.model));
        };
        if let Some(reason) = slot.trouble() {
            return Err(BackendError::Unavailable(reason));
        }
        match slot.serves() {
            Some(serves) => serves.backend.generate(request).await,
            None => Err(BackendError::UnknownModel(request.model)),
        }
    }
}
