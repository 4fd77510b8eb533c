//! The API's side of all models that are loaded.

use std::sync::Arc;

use brigade_api::{
    Backend, BackendError, ChatTemplate, Generation, GenerationRequest, Load, ModelInfo,
};

use super::Shared;
use super::slot::Slot;

/// All models of a daemon; a request names the one that it means.
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
    fn models(&self) -> Vec<ModelInfo> {
        let slots = self.slots().into_iter();
        slots.filter_map(|slot| Some(slot.serves()?.info)).collect()
    }

    fn template(&self, model: &str) -> Option<Arc<ChatTemplate>> {
        self.find(model)?.serves()?.template
    }

    fn load(&self) -> Result<Load, BackendError> {
        let mut sum = None;
        let mut trouble = "no model is loaded: `brigade load` runs one".to_owned();
        for slot in self.slots() {
            let (reason, serves) = (slot.trouble(), slot.serves());
            match (reason, serves) {
                (None, Some(serves)) => {
                    let own = serves.backend.load()?;
                    let all = sum.get_or_insert(Load {
                        waiting: 0,
                        active: 0,
                    });
                    all.waiting += own.waiting;
                    all.active += own.active;
                }
                (Some(reason), _) => trouble = reason,
                (None, None) => {}
            }
        }
        sum.ok_or(BackendError::Unavailable(trouble))
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
