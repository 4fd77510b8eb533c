//! What lies in a repository of a hub.

use std::thread;

use serde::Deserialize;

use crate::header::ATTEMPTS;
use crate::{Client, FetchError, HubError, HubRef, url};

/// The most of a listing; the largest repositories have some thousand files.
const MAX_LISTING_BYTES: u64 = 32 << 20;

/// The branch where none is named.
const MAIN: &str = "main";

/// A repository at one commit.
#[derive(Debug, Deserialize)]
pub(crate) struct Listing {
    /// The commit.
    #[serde(rename = "sha")]
    pub(crate) commit: String,
    /// Its files.
    #[serde(rename = "siblings")]
    pub(crate) files: Vec<Listed>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Listed {
    /// Its path in the repository.
    #[serde(rename = "rfilename")]
    pub(crate) path: String,
    /// Its size in bytes, where the hub says it.
    #[serde(default)]
    pub(crate) size: Option<u64>,
}

/// Lists a repository, once: what is found belongs to one commit.
pub(crate) fn list(client: &Client, hub: &HubRef) -> Result<Listing, HubError> {
    // A slash in a branch's name is no part of the path.
    let revision = hub.revision.as_deref().unwrap_or(MAIN);
    let revision = url::encode_path(revision).replace('/', "%2F");
    let at = format!(
        "{}/api/models/{}/revision/{revision}?blobs=true",
        client.endpoint(),
        url::encode_path(&hub.repo)
    );
    let ask = || client.whole(&at, MAX_LISTING_BYTES, "a list of files");
    let text = insist(client, ask).map_err(|error| HubError::Fetch {
        place: format!("{hub} at {}", url::shown(client.endpoint())),
        error,
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| error.to_string())
        .and_then(checked)
        .map_err(|reason| HubError::Listing {
            place: hub.to_string(),
            reason,
        })
}

/// What a hub says becomes part of addresses and of names of files.
fn checked(mut listing: Listing) -> Result<Listing, String> {
    let hex = |byte: u8| byte.is_ascii_hexdigit();
    if listing.commit.len() < 7 || !listing.commit.bytes().all(hex) {
        return Err(format!("{:?} is no commit", listing.commit));
    }
    listing.files.retain(|file| {
        let mut parts = file.path.split('/');
        !file.path.chars().any(|one| one.is_control() || one == '\\')
            && parts.all(|part| !matches!(part, "" | "." | ".."))
    });
    Ok(listing)
}

/// Asks again where that may help.
fn insist<T>(
    client: &Client,
    mut ask: impl FnMut() -> Result<T, FetchError>,
) -> Result<T, FetchError> {
    let mut wait = client.patience().again;
    for _ in 1..ATTEMPTS {
        match ask() {
            Err(error) if error.retry => thread::sleep(wait),
            result => return result,
        }
        wait *= 2;
    }
    ask()
}
