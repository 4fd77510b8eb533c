use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::{BackendError, Generation, GenerationRequest, Load};

/// Serves nothing.
struct Nothing;

impl Backend for Nothing {
    fn models(&self) -> Vec<ModelInfo> {
        Vec::new()
    }

    fn load(&self) -> Result<Load, BackendError> {
        Err(BackendError::Unavailable("nothing is served".to_owned()))
    }

    async fn generate(&self, request: GenerationRequest) -> Result<Generation, BackendError> {
        Err(BackendError::UnknownModel(request.model))
    }
}

#[test]
fn every_route_is_described_and_no_other() {
    let document: Value = serde_json::from_str(openapi::DOCUMENT).unwrap();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    let served: BTreeSet<(String, String)> = table::<Nothing>()
        .into_iter()
        .map(|(method, path, _)| (method.to_string(), path.to_owned()))
        .collect();
    assert_eq!(described, served);
}
