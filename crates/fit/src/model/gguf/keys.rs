//! The keys of a model under its architecture's name.

use brigade_gguf::{GgufError, Header, Value};

use crate::FitError;

/// A header's keys, without the architecture's name in front.
pub(super) struct Keys<'a> {
    header: &'a Header,
    architecture: &'a str,
    id: &'a str,
    layers: u32,
}

impl<'a> Keys<'a> {
    pub(super) fn new(header: &'a Header, id: &'a str) -> Result<Self, FitError> {
        let wrong = |error: GgufError| FitError::Model {
            of: id.to_owned(),
            reason: error.to_string(),
        };
        let mut keys = Self {
            header,
            architecture: header.architecture().map_err(wrong)?,
            id,
            layers: header.block_count().map_err(wrong)?,
        };
        let extra = keys.u32("nextn_predict_layers");
        if extra >= keys.layers {
            return Err(FitError::Model {
                of: id.to_owned(),
                reason: format!("{extra} of {} layers predict several tokens", keys.layers),
            });
        }
        keys.layers -= extra;
        Ok(keys)
    }

    pub(super) fn architecture(&self) -> &'a str {
        self.architecture
    }

    /// Layers that a token passes through.
    pub(super) fn layers(&self) -> usize {
        self.layers as usize
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.header.get(&format!("{}.{key}", self.architecture))
    }

    pub(super) fn opt_u32(&self, key: &str) -> Option<u32> {
        self.get(key).and_then(Value::as_u32)
    }

    /// The number, or 0.
    pub(super) fn u32(&self, key: &str) -> u32 {
        self.opt_u32(key).unwrap_or(0)
    }

    pub(super) fn require(&self, key: &str) -> Result<u32, FitError> {
        self.opt_u32(key).ok_or_else(|| FitError::Missing {
            of: self.id.to_owned(),
            fact: format!("{}.{key}", self.architecture),
        })
    }

    /// The number of each layer, where there is one number or one for each.
    pub(super) fn per_layer(&self, key: &str) -> Option<Vec<u32>> {
        match self.get(key)? {
            Value::Array(array) => {
                let values: Vec<u32> = array
                    .integers()?
                    .take(self.layers())
                    .map(|value| u32::try_from(value).unwrap_or(0))
                    .collect();
                (values.len() == self.layers()).then_some(values)
            }
            value => Some(vec![value.as_u32()?; self.layers()]),
        }
    }

    /// The largest of the layers' numbers, or 0.
    pub(super) fn largest(&self, key: &str) -> u32 {
        let values = self.per_layer(key).unwrap_or_default();
        values.into_iter().max().unwrap_or(0)
    }
}
