//! Requests: redirects that are judged, a token that stays with its hub, waits that end.

use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::{Agent, Body};

use crate::{Caches, FetchError, HubError, url};

/// The hub where none is named.
pub const HUGGING_FACE: &str = "https://huggingface.co";

/// The most redirects of one request.
const MAX_REDIRECTS: u32 = 10;
/// The most of a `config.json`; real ones have a few kilobytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// What must arrive each second once [`Patience::whole`] is over.
const LEAST_BYTES_A_SECOND: u64 = 8 << 10;

/// Waits for a server.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the head of an answer, and for each further piece of it.
    pub answer: Duration,
    /// For all headers of a model, before they must have come at some speed.
    pub whole: Duration,
    /// Before a request that failed is made again, the first time; then twice as long.
    pub again: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            whole: Duration::from_secs(60),
            again: Duration::from_millis(300),
        }
    }
}

/// What the environment or the user decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The hub that `hf:` means.
    pub endpoint: String,
    /// What proves to that hub who asks.
    pub token: Option<String>,
    /// Where other programs keep what they have fetched.
    pub caches: Caches,
    /// Waits.
    pub patience: Patience,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: HUGGING_FACE.to_owned(),
            token: None,
            caches: Caches::default(),
            patience: Patience::default(),
        }
    }
}

/// Asks servers, through the proxy that the environment names. Clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    settings: Settings,
}

/// An answer, and where it came from.
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    /// After redirects.
    pub(crate) url: String,
    /// What the hub, before it redirected, called this version of the file.
    pub(crate) linked_version: Option<String>,
}

impl Client {
    /// One with these settings.
    pub fn new(mut settings: Settings) -> Self {
        let endpoint = settings.endpoint.trim_end_matches('/').len();
        settings.endpoint.truncate(endpoint);
        let patience = settings.patience;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("brigade/", env!("CARGO_PKG_VERSION")))
            // Ranges of a packed answer would be of something else.
            .accept_encoding("identity")
            // They are followed here, so that what they lead to can be judged.
            .max_redirects(0)
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.answer))
            .timeout_per_read(Some(patience.answer))
            .build()
            .new_agent();
        Self { agent, settings }
    }

    /// The hub.
    pub fn endpoint(&self) -> &str {
        &self.settings.endpoint
    }

    /// What other programs have fetched to this machine.
    pub fn caches(&self) -> &Caches {
        &self.settings.caches
    }

    pub(crate) fn patience(&self) -> Patience {
        self.settings.patience
    }

    /// Asks for a file or for a range of it, and follows redirects.
    pub(crate) fn get(&self, at: &str, range: Option<&str>) -> Result<Answer, FetchError> {
        let mut at = at.to_owned();
        let mut linked_version = None;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&at);
            if let Some(range) = range {
                request = request.header(header::RANGE, range);
            }
            // Decided for every address anew: a redirect must not carry it to another server.
            if let Some(token) = &self.settings.token
                && url::same_server(&self.settings.endpoint, &at)
            {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call()?;
            if let Some(version) = text(response.headers(), "x-linked-etag") {
                linked_version = Some(version.to_owned());
            }
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(Answer {
                    response,
                    url: at,
                    linked_version,
                });
            }
            let Some(to) = text(response.headers(), header::LOCATION) else {
                return Err(FetchError::lasting(
                    "the server redirects without saying where to",
                ));
            };
            at = url::redirected(&at, to)?;
        }
        Err(FetchError::lasting("too many redirects"))
    }

    /// The whole of a short file.
    pub(crate) fn whole(
        &self,
        at: &str,
        most_bytes: u64,
        what: &str,
    ) -> Result<Vec<u8>, FetchError> {
        let mut answer = self.get(at, None)?;
        self.expect(&answer, StatusCode::OK)?;
        let mut pace = Pace::new(self.patience());
        let mut bytes = Vec::new();
        read_body(&mut answer.response, most_bytes + 1, &mut |piece| {
            bytes.extend_from_slice(piece);
            pace.count(piece.len())
        })?;
        if bytes.len() as u64 > most_bytes {
            return Err(FetchError::lasting(format!("too large for {what}")));
        }
        Ok(bytes)
    }

    /// Reads a `config.json`; given the address of its page on Hugging Face, the file itself.
    pub fn config(&self, at: &str) -> Result<String, HubError> {
        let at = url::direct(at);
        let read = self.whole(&at, MAX_CONFIG_BYTES, "a config.json");
        let text = read.and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| FetchError::lasting("not text in UTF-8"))
        });
        text.map_err(|error| HubError::Fetch {
            place: url::shown(&at),
            error,
        })
    }

    /// Fails unless an answer has this status, with what can be done about it.
    pub(crate) fn expect(&self, answer: &Answer, wanted: StatusCode) -> Result<(), FetchError> {
        let status = answer.response.status();
        if status == wanted {
            return Ok(());
        }
        let of_hub = url::same_server(&self.settings.endpoint, &answer.url);
        let hint = match (status.as_u16(), &self.settings.token) {
            (401 | 403, None) if of_hub => {
                ": there is no such repository, or it asks who you are: set HF_TOKEN to a token \
                 of an account that may read it"
            }
            (401 | 403, Some(_)) if of_hub => {
                ": there is no such repository, or the account of HF_TOKEN may not read it: ask \
                 for access on its page"
            }
            (401 | 403, _) => ": it may need a login; fetch the file, and name it here",
            (404, _) if of_hub => ": there is no such repository, revision or file",
            (404, _) => ": there is no such file",
            (429 | 500.., _) => ": try again later",
            _ => "",
        };
        let text = format!("the server answered {status}{hint}");
        Err(match status.as_u16() {
            408 | 429 | 500.. => FetchError::passing(text),
            _ => FetchError::lasting(text),
        })
    }
}

/// Hands on what an answer holds, up to a length.
pub(crate) fn read_body(
    response: &mut Response<Body>,
    most_bytes: u64,
    each: &mut dyn FnMut(&[u8]) -> Result<(), FetchError>,
) -> Result<(), FetchError> {
    use std::io::{ErrorKind, Read as _};
    let mut body = response.body_mut().as_reader().take(most_bytes);
    let mut piece = vec![0; 64 << 10];
    loop {
        match body.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => each(&piece[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(ureq::Error::from(error).into()),
        }
    }
}

pub(crate) fn text<K: header::AsHeaderName>(headers: &HeaderMap, name: K) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// What all answers together have taken.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    whole: Duration,
    pub(crate) bytes: u64,
}

impl Pace {
    pub(crate) fn new(patience: Patience) -> Self {
        Self {
            since: Instant::now(),
            whole: patience.whole,
            bytes: 0,
        }
    }

    /// Counts what came; an error where it comes too slowly ever to be done.
    pub(crate) fn count(&mut self, bytes: usize) -> Result<(), FetchError> {
        self.bytes += bytes as u64;
        let due = self.whole + Duration::from_secs(self.bytes / LEAST_BYTES_A_SECOND);
        let elapsed = self.since.elapsed();
        if elapsed <= due {
            return Ok(());
        }
        Err(FetchError::lasting(format!(
            "the server is too slow: {} bytes in {} s; try again later, or fetch the file, and \
             name it here",
            self.bytes,
            elapsed.as_secs()
        )))
    }
}
