//! What lies in the cache, as a table and as JSON.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use brigade_hub::{Kept, Location, Program, RemoteFile};
use brigade_node::{Cache, CachedModel, CachedPart, Came, What, Why};
use serde_json::{Value, json};

use crate::output;

/// A model of the cache as it was when somebody looked.
pub(super) struct Listed {
    name: String,
    model: String,
    came: Came,
    parts: Vec<Part>,
}

struct Part {
    what: What,
    is_complete: bool,
    bytes: u64,
    last_used: Option<SystemTime>,
    why: Option<Why>,
    paths: Vec<String>,
}

impl Listed {
    pub(super) fn of(cache: &Cache, models: &[CachedModel]) -> Vec<Self> {
        let part = |model: &CachedModel, part: &CachedPart| Part {
            what: part.what,
            is_complete: part.is_complete,
            bytes: part.stored.disk_bytes(),
            // To ask whether it is in use is not to use it.
            last_used: part.stored.last_used(),
            why: Why::of(cache, model, part),
            paths: part
                .stored
                .paths
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
        };
        let listed = |model: &CachedModel| Self {
            name: model.name.clone(),
            model: model.model.clone(),
            came: model.came.clone(),
            parts: model.parts.iter().map(|one| part(model, one)).collect(),
        };
        models.iter().map(listed).collect()
    }

    fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Where it came from.
    fn came(&self) -> String {
        match &self.came {
            Came::Cut(Some(path)) => format!("cut from {path}"),
            Came::Cut(None) => "cut from a file".to_owned(),
            Came::Fetched(files) => match files.first() {
                Some(file) => format!("from {}", place(file)),
                None => "from other nodes".to_owned(),
            },
            Came::Put => "put here by another program".to_owned(),
        }
    }

    fn json(&self) -> Value {
        let origin = match &self.came {
            Came::Cut(path) => json!({ "kind": "cut", "path": path }),
            Came::Fetched(files) => json!({
                "kind": "fetched",
                "files": files.iter().map(place).collect::<Vec<_>>(),
            }),
            Came::Put => json!({ "kind": "put" }),
        };
        json!({
            "name": self.name,
            "model": self.model,
            "origin": origin,
            "bytes": self.bytes(),
            "parts": self.parts.iter().map(Part::json).collect::<Vec<_>>(),
        })
    }
}

impl Part {
    fn json(&self) -> Value {
        let (kind, layers) = match self.what {
            What::Stage(layers) => ("stage", Some(layers)),
            What::Whole => ("whole", None),
            What::Header => ("header", None),
        };
        let since = self
            .last_used
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        json!({
            "part": self.what.to_string(),
            "kind": kind,
            "layers": layers,
            "complete": self.is_complete,
            "bytes": self.bytes,
            "last_used_unix_s": since.map(|since| since.as_secs()),
            "in_use": matches!(self.why, Some(Why::Used | Why::Written)),
            "why": self.why.map(why),
            "paths": self.paths,
        })
    }
}

/// A file on a server, for people.
fn place(file: &RemoteFile) -> String {
    match &file.location {
        Location::Hub { repo, commit, path } => format!("hf:{repo}:{path}@{commit}"),
        Location::Url(address) => brigade_hub::url::shown(address),
    }
}

/// Why something stays.
pub(super) fn why(why: Why) -> &'static str {
    match why {
        Why::Used => "in use",
        Why::Written => "being written or fetched",
        Why::Declared => "needed by a model that is loaded",
    }
}

pub(super) fn json(cache: &Cache, models: &[Listed], elsewhere: &[Kept]) -> Value {
    let kept = |kept: &Kept| {
        json!({
            "by": match kept.by {
                Program::HuggingFace => "hugging-face",
                Program::LmStudio => "lm-studio",
                Program::Ollama => "ollama",
            },
            "reference": kept.reference,
            "bytes": kept.bytes,
            "path": kept.path.display().to_string(),
        })
    };
    json!({
        "schema": "brigade.models/1",
        "folder": cache.folder.display().to_string(),
        "limit_bytes": cache.limit_bytes,
        "used_bytes": models.iter().map(Listed::bytes).sum::<u64>(),
        "models": models.iter().map(Listed::json).collect::<Vec<_>>(),
        "elsewhere": elsewhere.iter().map(kept).collect::<Vec<_>>(),
    })
}

pub(super) fn text(cache: &Cache, models: &[Listed]) -> String {
    let all = models.iter().map(Listed::bytes).sum();
    let limit = match cache.limit_bytes {
        Some(bytes) => format!("at most {}", output::bytes(bytes)),
        None => "without a limit".to_owned(),
    };
    let (folder, all) = (cache.folder.display(), output::bytes(all));
    let mut text = format!("{folder} has {all} of models, {limit}\n");
    let now = SystemTime::now();
    for model in models {
        let _ = writeln!(text, "\n{}  {}", model.name, model.came());
        for part in &model.parts {
            let what = match part.what {
                What::Stage(layers) => format!("layers {layers}"),
                What::Whole | What::Header => part.what.to_string(),
            };
            let what = if part.is_complete {
                what
            } else {
                format!("{what} (a part)")
            };
            let used = part
                .last_used
                .map_or_else(|| "-".to_owned(), |time| ago(now, time));
            let state = part.why.map_or("", why);
            let line = format!(
                "  {what:<24} {:>10}  {used:<12} {state}",
                output::bytes(part.bytes)
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text
}

/// What other programs keep.
pub(super) fn elsewhere(kept: &[Kept]) -> String {
    let mut text = String::new();
    for program in [Program::HuggingFace, Program::LmStudio, Program::Ollama] {
        let own: Vec<_> = kept.iter().filter(|kept| kept.by == program).collect();
        if own.is_empty() {
            continue;
        }
        let all = own.iter().map(|kept| kept.bytes).sum();
        let _ = writeln!(
            text,
            "\n{program} has {}, used where they lie",
            output::bytes(all)
        );
        for kept in own {
            let (size, path) = (output::bytes(kept.bytes), kept.path.display());
            let _ = writeln!(text, "\n{}\n  {size:>10}  {path}", kept.reference);
        }
    }
    text
}

/// How long ago something was.
fn ago(now: SystemTime, time: SystemTime) -> String {
    let seconds = now.duration_since(time).unwrap_or(Duration::ZERO).as_secs();
    match seconds {
        0..60 => "just now".to_owned(),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_ago() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let before = |seconds| ago(now, now - Duration::from_secs(seconds));
        for (seconds, expected) in [
            (0, "just now"),
            (59, "just now"),
            (60, "1 min ago"),
            (7200, "2 h ago"),
            (86_400 * 3, "3 d ago"),
        ] {
            assert_eq!(before(seconds), expected);
        }
        // A clock may have been set back.
        assert_eq!(ago(now, now + Duration::from_secs(5)), "just now");
    }
}
