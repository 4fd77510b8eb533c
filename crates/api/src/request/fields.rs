//! The members of a JSON object, taken one by one; what is left over is refused.

use serde_json::{Map, Value};

use crate::error::ApiError;

/// Members not taken yet. `null` counts as absent, as OpenAI's clients mean it.
pub(crate) struct Fields {
    members: Map<String, Value>,
    /// Where the object stands, for messages: `messages[2]`; empty for the body itself.
    place: String,
}

impl Fields {
    pub(crate) fn new(members: Map<String, Value>) -> Self {
        Self::within(members, "")
    }

    pub(crate) fn within(members: Map<String, Value>, place: impl Into<String>) -> Self {
        Self {
            members,
            place: place.into(),
        }
    }

    /// A member's full name: `messages[2].role`.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.place.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.place)
        }
    }

    /// A value that cannot be: `rest` follows the member's name.
    pub(crate) fn invalid(&self, name: &str, rest: &str) -> ApiError {
        let path = self.path(name);
        let message = format!("{path} {rest}");
        ApiError::invalid(path, message)
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.invalid(name, "must be a string")),
        }
    }

    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(self.invalid(name, "must be true or false")),
        }
    }

    pub(crate) fn number(
        &mut self,
        name: &str,
        least: f64,
        most: f64,
    ) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        match value.as_f64() {
            None => Err(self.invalid(name, "must be a number")),
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            Some(_) => Err(self.invalid(name, &format!("must be between {least} and {most}"))),
        }
    }

    pub(crate) fn integer(
        &mut self,
        name: &str,
        least: i64,
        most: i64,
    ) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        match value {
            // Beyond i64, and so beyond any range.
            Value::Number(number) if number.is_u64() => {
                let number = number.as_i64().unwrap_or(i64::MAX);
                Some(number)
            }
            Value::Number(number) => number.as_i64(),
            _ => None,
        }
        .map_or_else(
            || Err(self.invalid(name, "must be an integer")),
            |number| {
                if (least..=most).contains(&number) {
                    Ok(Some(number))
                } else {
                    Err(self.invalid(name, &format!("must be between {least} and {most}")))
                }
            },
        )
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(name) => {
                let path = self.path(name);
                let message = format!("unknown parameter '{path}'");
                Err(ApiError::unknown_parameter(path, message))
            }
        }
    }
}
