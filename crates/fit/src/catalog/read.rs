//! Catalog files: tables of entries, each with an id, read with the line of whatever is wrong.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;

use crate::error::FitError;
use crate::nearest::nearest;

/// A catalog file: its name within the folder and its text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File<'a> {
    /// Such as `hardware.toml`.
    pub(crate) name: &'a str,
    /// All of it.
    pub(crate) text: &'a str,
}

/// An entry and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row<T> {
    /// The file's name.
    pub(crate) file: String,
    /// Line of its header, from 1.
    pub(crate) line: usize,
    /// The entry.
    pub(crate) value: T,
}

/// What is named by an id.
pub(crate) trait Entry {
    /// Its id, unique within its table.
    fn id(&self) -> &str;
}

impl<'a> File<'a> {
    /// A file of this name.
    pub(crate) fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text }
    }

    /// Reads the file; an error names the line and the field.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, FitError> {
        toml::from_str(self.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let line = self.line(&span);
            let message = error.message().to_owned();
            FitError::Catalog {
                file: self.name.to_owned(),
                line,
                field: self.named_field(&message, line),
                reason: without_list(&message),
            }
        })
    }

    /// The entries of one table, in order; ids must be kebab-case and unique.
    pub(crate) fn rows<T: Entry>(&self, table: Vec<Spanned<T>>) -> Result<Vec<Row<T>>, FitError> {
        let mut seen = BTreeSet::new();
        let mut rows = Vec::with_capacity(table.len());
        // Lines are counted on from one entry to the next: from the start each time is quadratic.
        let (mut at, mut line) = (0, 1);
        for entry in table {
            let span = entry.span();
            let id = entry.get_ref().id();
            if !is_kebab(id) {
                let reason =
                    format!("'{id}' is no id: small letters, digits, dots and single hyphens");
                return Err(self.fault(&span, "id", reason));
            }
            if !seen.insert(id.to_owned()) {
                return Err(self.fault(&span, "id", format!("'{id}' stands here twice")));
            }
            line += newlines(self.text.as_bytes().get(at..span.start).unwrap_or_default());
            at = at.max(span.start);
            rows.push(Row {
                file: self.name.to_owned(),
                line,
                value: entry.into_inner(),
            });
        }
        Ok(rows)
    }

    /// The line, from 1, at which a span starts.
    pub(crate) fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start);
        1 + newlines(before.unwrap_or_default())
    }

    /// A fault of a field of the entry at `span`, at the field's own line where it has one.
    pub(crate) fn fault(
        &self,
        span: &Range<usize>,
        field: &str,
        reason: impl Into<String>,
    ) -> FitError {
        let start = self.line(span);
        // A span may cover the header only, so that the entry ends where the next one starts.
        let own = self.text.lines().enumerate().skip(start);
        let at = own
            .take_while(|(_, line)| !line.starts_with("[["))
            .find(|(_, line)| key_of(line) == Some(field))
            .map_or(start, |(index, _)| index + 1);
        FitError::Catalog {
            file: self.name.to_owned(),
            line: at,
            field: field.to_owned(),
            reason: reason.into(),
        }
    }

    /// The field that a message of the TOML reader is about: the one it quotes, else the line's.
    fn named_field(&self, message: &str, line: usize) -> String {
        let quoted = message.split('`').nth(1);
        let own = self
            .text
            .lines()
            .nth(line.saturating_sub(1))
            .and_then(key_of);
        match (message.contains(" field `"), quoted, own) {
            (true, Some(field), _) | (_, _, Some(field)) => field.to_owned(),
            _ => "syntax".to_owned(),
        }
    }
}

impl<T: Entry> Row<T> {
    /// A fault of a field of this entry, at the entry's header.
    pub(crate) fn fault(&self, field: &str, reason: impl Into<String>) -> FitError {
        FitError::Catalog {
            file: self.file.clone(),
            line: self.line,
            field: field.to_owned(),
            reason: format!("{}: {}", self.value.id(), reason.into()),
        }
    }

    /// A fault of a field that names something that is not there.
    pub(crate) fn dangling<'n>(
        &self,
        field: &str,
        name: &str,
        valid: impl Iterator<Item = &'n str>,
    ) -> FitError {
        let near = nearest(name, valid);
        let hint = match near.as_slice() {
            [] => String::new(),
            names => format!("; did you mean {}?", names.join(" or ")),
        };
        self.fault(field, format!("nothing is called '{name}'{hint}"))
    }
}

/// Rows over rows: an entry of `over` takes the place of the one with its id, or comes last.
pub(crate) fn merge<T: Entry>(base: &mut Vec<Row<T>>, over: Vec<Row<T>>) {
    for row in over {
        match base.iter_mut().find(|old| old.value.id() == row.value.id()) {
            Some(old) => *old = row,
            None => base.push(row),
        }
    }
}

/// Whether a text is an id: `mac-mini-m4-pro-64gb`, `qwen2.5-7b`.
pub(crate) fn is_kebab(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.';
    !id.is_empty()
        && id
            .split('-')
            .all(|part| !part.is_empty() && part.chars().all(plain))
}

/// Whether a text is a day, `2026-11-24`, or a month, `2026-11`.
pub(crate) fn is_date(date: &str) -> bool {
    let parts: Vec<&str> = date.split('-').collect();
    let number = |text: &str, digits: usize, range: Range<u32>| {
        text.len() == digits && text.parse().is_ok_and(|n: u32| range.contains(&n))
    };
    match parts.as_slice() {
        [year, month] => number(year, 4, 2000..2100) && number(month, 2, 1..13),
        [year, month, day] => {
            number(year, 4, 2000..2100) && number(month, 2, 1..13) && number(day, 2, 1..32)
        }
        _ => false,
    }
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').count() - 1
}

/// The key of a line `key = value`.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (!key.is_empty() && key.chars().all(plain)).then_some(key)
}

/// A message of the TOML reader, in one line.
fn without_list(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
