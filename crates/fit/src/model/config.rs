//! A model from a Hugging Face `config.json`.
//!
//! Key names are those of the `transformers` library's configuration classes; what a class
//! defaults to is written here with the architecture. A key that is needed and absent goes to
//! [`Model::missing`] by its name.

use std::cell::{Cell, RefCell};

use serde_json::{Map, Value};
use thiserror::Error;

use super::Model;
use super::mix::{self, Mix, Parts};
use super::shape::Shape;
use crate::error::FitError;

mod family;
mod feeds;
mod table;
#[cfg(test)]
mod tests;

/// No model has more layers.
const MAX_LAYERS: u64 = 512;
/// No width is larger. With [`MAX_COUNT`] it keeps all products within 64 bits.
const MAX_WIDTH: u64 = 1 << 17;
/// No model has more heads or experts, and no head is wider.
const MAX_COUNT: u64 = 1 << 12;
/// No vocabulary is larger.
const MAX_VOCAB: u64 = 1 << 23;
/// A `config.json` is a few kilobytes, and a few megabytes where it names every tensor.
const MAX_BYTES: usize = 16 << 20;

/// What a `config.json` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// llama.cpp's name of the architecture, or the config's own where llama.cpp has none.
    pub architecture: String,
    /// The tensors; empty where something is missing.
    pub shape: Shape,
    /// The context that the model was made for; 0 where it is not said.
    pub max_context: u32,
    /// Attention heads.
    pub heads: u32,
    /// Routed experts of a layer.
    pub experts: u32,
    /// Routed experts that a token uses.
    pub experts_used: u32,
    /// Keys that are needed and absent, or cannot be right.
    pub missing: Vec<String>,
}

/// A flag that is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{key}` is {value}, neither true nor false")]
pub struct NoFlag {
    /// The key.
    pub key: String,
    /// What stands there, cut short.
    pub value: String,
}

impl Model {
    /// A model from the text of a `config.json`; its quantizations are computed.
    ///
    /// Fails where the text is no JSON object or a flag is none. Whatever else is not known stands
    /// in `missing`, and the model then has no layers.
    pub fn from_config(text: &str, id: &str) -> Result<Self, FitError> {
        let bad = |reason: String| FitError::Model {
            of: id.to_owned(),
            reason,
        };
        if text.len() > MAX_BYTES {
            return Err(bad(format!(
                "a config.json of {} bytes is none",
                text.len()
            )));
        }
        // Editors of Windows begin a file with it.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let read = serde_json::from_str(text).or_else(|_| serde_json::from_str(&strict(text)));
        let value: Value = read.map_err(|error| bad(format!("no JSON: {error}")))?;
        let Value::Object(map) = value else {
            return Err(bad("no JSON object".to_owned()));
        };
        let mixes = mix::builtin()?;
        let facts = Facts::read(&map).map_err(|error| bad(error.to_string()))?;
        Ok(facts.into_model(id, &mixes))
    }
}

impl Facts {
    /// Reads the keys of a `config.json`. Fails on a flag of another type: what it would default to
    /// says nothing of it.
    pub fn read(config: &Map<String, Value>) -> Result<Self, NoFlag> {
        let keys = Keys::new(config);
        let facts = family::read(&keys);
        keys.no_flag.take().map_or(Ok(facts), Err)
    }

    /// The model of these facts, with computed quantizations; without layers and quantizations
    /// where something is missing.
    pub fn into_model(self, id: &str, mixes: &[Mix]) -> Model {
        let complete = self.missing.is_empty();
        let (quants, params, active_params) = if complete {
            let parts = Parts::of(&self);
            let quants = mixes
                .iter()
                .filter(|mix| mix.fits(&self))
                .map(|mix| mix.quantization(&parts));
            (
                quants.collect(),
                self.shape.params(),
                self.shape.active_params(),
            )
        } else {
            (Vec::new(), 0, 0)
        };
        let production = mixes
            .iter()
            .filter(|mix| mix.production)
            .map(|mix| mix.name.clone());
        Model {
            id: id.to_owned(),
            name: id.to_owned(),
            repo: None,
            aliases: Vec::new(),
            params,
            active_params,
            hidden: narrow(self.shape.hidden),
            heads: self.heads,
            vocab: narrow(self.shape.vocab),
            tied_embeddings: self.shape.tied,
            max_context: self.max_context,
            experts: self.experts,
            experts_used: self.experts_used,
            layers: if complete {
                self.shape.layers()
            } else {
                Vec::new()
            },
            quants,
            production: production.collect(),
            architecture: self.architecture,
            missing: self.missing,
            source: "config.json".to_owned(),
            date: String::new(),
            note: None,
        }
    }
}

/// The keys of a config: its text part's, with the outer ones behind.
struct Keys<'a> {
    outer: &'a Map<String, Value>,
    inner: &'a Map<String, Value>,
    /// What holds for keys that are absent.
    defaults: Cell<&'static [(&'static str, u64)]>,
    missing: RefCell<Vec<String>>,
    no_flag: Cell<Option<NoFlag>>,
}

impl<'a> Keys<'a> {
    fn new(outer: &'a Map<String, Value>) -> Self {
        let inner = ["text_config", "llm_config", "language_config"]
            .iter()
            .find_map(|key| outer.get(*key)?.as_object());
        Self {
            outer,
            inner: inner.unwrap_or(outer),
            defaults: Cell::default(),
            missing: RefCell::default(),
            no_flag: Cell::default(),
        }
    }

    /// A value that is there and not null.
    fn get(&self, key: &str) -> Option<&'a Value> {
        let value = |map: &'a Map<String, Value>| map.get(key).filter(|value| !value.is_null());
        value(self.inner).or_else(|| value(self.outer))
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key)?.as_str()
    }

    fn flag(&self, key: &str, default: Flag) -> bool {
        let Some(value) = self.get(key) else {
            return default == Flag::On;
        };
        value.as_bool().unwrap_or_else(|| {
            self.no_flag.set(Some(NoFlag {
                key: key.to_owned(),
                value: value.to_string().chars().take(40).collect(),
            }));
            false
        })
    }

    /// Whether a key has to do with experts, and is not 0, empty or off.
    fn speaks_of_experts(&self) -> bool {
        let all = self.inner.iter().chain(self.outer);
        all.filter(|(key, _)| key.contains("expert") || key.contains("moe"))
            .any(|(_, value)| match value {
                Value::Null => false,
                Value::Bool(flag) => *flag,
                Value::Number(number) => number.as_f64() != Some(0.0),
                Value::String(text) => !text.is_empty(),
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) => !map.is_empty(),
            })
    }

    /// A number from 0 to `most`; a larger one, or no number, is reported and counts as absent.
    fn bounded(&self, key: &str, most: u64) -> Option<u64> {
        let Some(value) = self.get(key) else {
            let known = self.defaults.get().iter().find(|(name, _)| *name == key);
            return known.map(|(_, number)| *number);
        };
        let number = value.as_u64().filter(|number| *number <= most);
        if number.is_none() {
            self.report(key);
        }
        number
    }

    fn width(&self, key: &str) -> Option<u64> {
        self.bounded(key, MAX_WIDTH)
    }

    fn count(&self, key: &str) -> Option<u64> {
        self.bounded(key, MAX_COUNT)
    }

    /// A number that may be left out, and is reported where it is 0: that is not the same.
    fn some(&self, key: &str, most: u64) -> Option<u64> {
        let number = self.bounded(key, most);
        if number == Some(0) {
            self.report(key);
        }
        number
    }

    /// Every how manieth layer is another one.
    fn period(&self, key: &str, default: u64) -> u64 {
        self.some(key, MAX_LAYERS).unwrap_or(default).max(1)
    }

    /// A number that must be there and not 0.
    fn need(&self, key: &str, most: u64) -> u64 {
        let number = self.bounded(key, most).unwrap_or(0);
        if number == 0 {
            self.report(key);
        }
        number
    }

    fn need_width(&self, key: &str) -> u64 {
        self.need(key, MAX_WIDTH)
    }

    fn need_count(&self, key: &str) -> u64 {
        self.need(key, MAX_COUNT)
    }

    /// The number of the first of these keys that is there; else the first one is reported.
    fn need_any(&self, keys: &[&str], most: u64) -> u64 {
        let first = keys.first().copied().unwrap_or_default();
        let key = keys
            .iter()
            .copied()
            .find(|key| self.has(key))
            .unwrap_or(first);
        self.need(key, most)
    }

    /// A list, one item a layer.
    fn list(&self, key: &str, layers: u64) -> Option<&'a Vec<Value>> {
        let list = self.get(key)?.as_array();
        let fits = list.filter(|list| list.len() as u64 == layers);
        if fits.is_none() {
            self.report(key);
        }
        fits
    }

    /// Names a fact that is needed and not there.
    fn report(&self, key: &str) {
        let mut missing = self.missing.borrow_mut();
        if !missing.iter().any(|known| known == key) {
            missing.push(key.to_owned());
        }
    }
}

/// JSON without Python's `Infinity` and `NaN`, which configs have as well; no key that is read
/// has one.
fn strict(text: &str) -> String {
    let parts = text.split('"').scan(false, |inside, part| {
        let within = *inside;
        // The quote that ends this part does not end a string after an odd run of backslashes.
        let escapes = part.chars().rev().take_while(|c| *c == '\\').count();
        *inside = !within || escapes % 2 == 1;
        let plain = || {
            part.replace("-Infinity", "null")
                .replace("Infinity", "null")
                .replace("NaN", "null")
        };
        Some(if within { part.to_owned() } else { plain() })
    });
    parts.collect::<Vec<_>>().join("\"")
}

/// What holds where a key is absent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flag {
    On,
    Off,
}

/// Numbers are bounded long before 32 bits.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
