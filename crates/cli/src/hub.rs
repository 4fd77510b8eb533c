//! Model references, with what the environment says about hubs.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use brigade_hub::{Caches, Client, HUGGING_FACE, Settings};

/// The most of a file with a token.
const MAX_TOKEN_BYTES: u64 = 4096;

/// What asks servers: the hub of `HF_ENDPOINT`, with the token of `HF_TOKEN` or of the file in
/// which Hugging Face's own tools keep it.
pub(crate) fn client() -> Client {
    Client::new(Settings {
        endpoint: text("HF_ENDPOINT").unwrap_or_else(|| HUGGING_FACE.to_owned()),
        token: text("HF_TOKEN").or_else(kept_token),
        caches: caches(),
        ..Settings::default()
    })
}

/// Where other programs keep models on this machine.
fn caches() -> Caches {
    let home = variable("HOME").map(PathBuf::from);
    let in_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let hub = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]
        .into_iter()
        .find_map(variable);
    let hub = hub
        .map(PathBuf::from)
        .or_else(|| Some(hf_home()?.join("hub")));
    let lm_studio = [".lmstudio/models", ".cache/lm-studio/models"]
        .into_iter()
        .filter_map(in_home);
    let ollama = match variable("OLLAMA_MODELS") {
        Some(named) => vec![named.into()],
        // The second is of the service that its installer makes.
        None => in_home(".ollama/models")
            .into_iter()
            .chain([PathBuf::from("/usr/share/ollama/.ollama/models")])
            .collect(),
    };
    Caches {
        hugging_face: hub.into_iter().collect(),
        lm_studio: lm_studio.collect(),
        ollama,
    }
}

/// Where Hugging Face's tools keep what is theirs.
pub(crate) fn hf_home() -> Option<PathBuf> {
    let xdg = || Some(PathBuf::from(variable("XDG_CACHE_HOME")?));
    let usual = || Some(PathBuf::from(variable("HOME")?).join(".cache"));
    let named = variable("HF_HOME").map(PathBuf::from);
    named.or_else(|| Some(xdg().or_else(usual)?.join("huggingface")))
}

fn kept_token() -> Option<String> {
    let named = variable("HF_TOKEN_PATH").map(PathBuf::from);
    let path = named.or_else(|| Some(hf_home()?.join("token")))?;
    let token = crate::files::read_text(&path, MAX_TOKEN_BYTES).ok()?;
    is_token(token.trim()).then(|| token.trim().to_owned())
}

/// Whether this can stand in a request's head.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn text(name: &str) -> Option<String> {
    let value = variable(name)?.into_string().ok()?;
    let value = value.trim();
    is_token(value).then(|| value.to_owned())
}

/// A variable of the environment that is not empty.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
