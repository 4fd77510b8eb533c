//! The keys of a model under its architecture's name.

use std::cell::RefCell;

use brigade_gguf::{GgufError, Header, Value, ValueType};

use crate::FitError;

/// A header's keys, without the architecture's name in front.
pub(super) struct Keys<'a> {
    header: &'a Header,
    architecture: &'a str,
    id: &'a str,
    /// With those that predict several tokens.
    blocks: u32,
    layers: u32,
    /// Keys that cannot be used, and why; the key is empty for what is no key's.
    faults: RefCell<Vec<(String, String)>>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(header: &'a Header, id: &'a str) -> Result<Self, FitError> {
        let wrong = |error: GgufError| FitError::Model {
            of: id.to_owned(),
            reason: error.to_string(),
        };
        let blocks = header.block_count().map_err(wrong)?;
        let mut keys = Self {
            header,
            architecture: header.architecture().map_err(wrong)?,
            id,
            blocks,
            layers: blocks,
            faults: RefCell::default(),
        };
        keys.positive("block_count")?;
        let key = "nextn_predict_layers";
        let extra = match keys.get(key) {
            None => 0,
            Some(value) => value
                .as_u32()
                .ok_or_else(|| keys.refused(key, "is no whole number below 2^32"))?,
        };
        if extra >= blocks {
            return Err(keys.refuse(format!("{extra} of {blocks} layers predict several tokens")));
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

    /// The same, with those after them that predict several tokens.
    pub(super) fn blocks(&self) -> usize {
        self.blocks as usize
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.header.get(&self.whole(key))
    }

    /// A number that is there. What is no number is reported: it is not absent, and what holds for
    /// an absent key says nothing of it.
    pub(super) fn opt_u32(&self, key: &str) -> Option<u32> {
        let number = self.get(key)?.as_u32();
        if number.is_none() {
            self.report(key, "it is no whole number below 2^32");
        }
        number
    }

    /// The number, or 0.
    pub(super) fn u32(&self, key: &str) -> u32 {
        self.opt_u32(key).unwrap_or(0)
    }

    /// A number without which there is no answer; 0, and reported, where there is none.
    pub(super) fn need(&self, key: &str) -> u32 {
        let number = self.u32(key);
        if number == 0 {
            self.lacks(key);
        }
        number
    }

    /// A number without which there is no model.
    pub(super) fn positive(&self, key: &str) -> Result<u32, FitError> {
        let value = self.get(key).ok_or_else(|| FitError::Missing {
            of: self.id.to_owned(),
            fact: self.whole(key),
        })?;
        match value.as_u32() {
            Some(0) => Err(self.refused(key, "is 0")),
            Some(number) => Ok(number),
            None => Err(self.refused(key, "is no whole number below 2^32")),
        }
    }

    /// The number of each layer, where there is one number or, as llama.cpp wants it, one for each.
    pub(super) fn per_layer(&self, key: &str) -> Option<Vec<u32>> {
        let Value::Array(array) = self.get(key)? else {
            return Some(vec![self.opt_u32(key)?; self.layers()]);
        };
        if array.len() != u64::from(self.blocks) {
            let reason = format!("it lists {} layers, not {}", array.len(), self.blocks);
            self.report(key, &reason);
            return None;
        }
        let integers = array
            .integers()
            .filter(|_| array.element_type() != ValueType::Bool);
        let values: Option<Vec<u32>> =
            integers.and_then(|all| all.map(|value| u32::try_from(value).ok()).collect());
        let Some(mut values) = values else {
            self.report(key, "it lists what is no whole number below 2^32");
            return None;
        };
        values.truncate(self.layers());
        Some(values)
    }

    /// Whether each layer is listed as one of some kind. What stands beyond the last layer does not
    /// count, as in llama.cpp.
    pub(super) fn flags(&self, key: &str) -> Option<Vec<bool>> {
        let Value::Array(array) = self.get(key)? else {
            return Some(vec![self.opt_u32(key)? != 0; self.layers()]);
        };
        let Some(integers) = array.integers() else {
            self.report(key, "it lists what is no flag");
            return None;
        };
        let flags: Vec<bool> = integers.take(self.layers()).map(|flag| flag != 0).collect();
        if flags.len() < self.layers() {
            let reason = format!("it lists {} layers, not {}", flags.len(), self.layers);
            self.report(key, &reason);
            return None;
        }
        Some(flags)
    }

    /// The largest of the layers' numbers, or 0.
    pub(super) fn largest(&self, key: &str) -> u32 {
        let values = self.per_layer(key).unwrap_or_default();
        values.into_iter().max().unwrap_or(0)
    }

    /// Reports a number that is needed and absent, or 0.
    pub(super) fn lacks(&self, key: &str) {
        let reason = self.get(key).map_or("", |_| "it is 0");
        self.report(key, reason);
    }

    /// Reports a key that cannot be used, and why; once for each key, as what is said first is the
    /// cause of the rest.
    pub(super) fn report(&self, key: &str, reason: &str) {
        let whole = self.whole(key);
        let fact = if reason.is_empty() {
            whole
        } else {
            format!("{whole}: {reason}")
        };
        self.add(key, fact);
    }

    /// Reports a fact that is no single key's.
    pub(super) fn report_fact(&self, fact: String) {
        self.add("", fact);
    }

    fn add(&self, key: &str, fact: String) {
        let mut faults = self.faults.borrow_mut();
        let said = |(other, text): &(String, String)| {
            *text == fact || (!key.is_empty() && other.as_str() == key)
        };
        if !faults.iter().any(said) {
            faults.push((key.to_owned(), fact));
        }
    }

    /// Whether nothing was reported yet.
    pub(super) fn is_sound(&self) -> bool {
        self.faults.borrow().is_empty()
    }

    /// All that was reported.
    pub(super) fn faults(&self) -> Vec<String> {
        self.faults
            .take()
            .into_iter()
            .map(|(_, fact)| fact)
            .collect()
    }

    /// The error of a file that makes no sense.
    pub(super) fn refuse(&self, reason: String) -> FitError {
        FitError::Model {
            of: self.id.to_owned(),
            reason,
        }
    }

    fn refused(&self, key: &str, reason: &str) -> FitError {
        self.refuse(format!("{} {reason}", self.whole(key)))
    }

    pub(super) fn whole(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }
}
