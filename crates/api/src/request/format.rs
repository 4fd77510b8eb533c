//! `response_format`.

use serde_json::Value;

use super::{Fields, ResponseFormat};
use crate::error::ApiError;

const NAME: &str = "response_format";

pub(super) fn parse(value: Option<Value>) -> Result<ResponseFormat, ApiError> {
    let members = match value {
        None => return Ok(ResponseFormat::Text),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(ApiError::invalid(NAME, "response_format must be an object")),
    };
    let mut fields = Fields::within(members, NAME);
    let format = match fields.string("type")?.as_deref() {
        Some("text") => ResponseFormat::Text,
        Some("json_object") => ResponseFormat::JsonObject,
        Some("json_schema") => ResponseFormat::JsonSchema(schema(&mut fields)?),
        Some(_) => {
            return Err(fields.invalid("type", "must be 'text', 'json_object' or 'json_schema'"));
        }
        None => return Err(fields.invalid("type", "is required")),
    };
    fields.finish()?;
    Ok(format)
}

/// The schema is always kept, `strict` or not.
fn schema(fields: &mut Fields) -> Result<Value, ApiError> {
    let place = fields.path("json_schema");
    let mut inner = match fields.take("json_schema") {
        Some(Value::Object(members)) => Fields::within(members, place),
        _ => return Err(fields.invalid("json_schema", "must be an object")),
    };
    inner.string("name")?;
    inner.string("description")?;
    inner.boolean("strict")?;
    let schema = match inner.take("schema") {
        Some(schema @ Value::Object(_)) => schema,
        Some(_) => return Err(inner.invalid("schema", "must be an object")),
        None => return Err(inner.invalid("schema", "is required")),
    };
    inner.finish()?;
    Ok(schema)
}
