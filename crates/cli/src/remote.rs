//! Files on web servers, read by byte range: of a model, only its headers.
//!
//! What answers is a stranger. Every wait has an end, no answer is read further than what was
//! asked for, and a server that would send the whole file is refused.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use brigade_gguf::header::MAX_HEADER_BYTES;
use brigade_gguf::{Header, Model, split_prefix};
use ureq::config::ConfigBuilder;
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::typestate::AgentScope;
use ureq::{Agent, Body};

/// The first range; holds the header of most models without a large vocabulary.
const FIRST_RANGE_BYTES: u64 = 256 << 10;
/// The largest range: fewer requests would not be noticed any more.
const MAX_RANGE_BYTES: u64 = 4 << 20;
/// The most of a `config.json`; real ones have a few kilobytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// The most parts of a split model.
const MAX_PARTS: u32 = 999;
/// How often a range is asked for when the connection breaks.
const ATTEMPTS: u32 = 3;
/// The most requests for one file: twice what the longest header takes.
const MAX_REQUESTS: u64 = 2 * MAX_HEADER_BYTES / MAX_RANGE_BYTES;
/// The most redirects of one request.
const MAX_REDIRECTS: u32 = 10;
/// The largest file that can be a model's.
const MAX_FILE_BYTES: u64 = 1 << 50;
/// What must arrive each second once [`Patience::whole`] is over.
const LEAST_BYTES_A_SECOND: u64 = 8 << 10;

/// Waits for the server.
#[derive(Debug, Clone, Copy)]
struct Patience {
    connect: Duration,
    /// For the head of an answer, and for each further piece of it.
    answer: Duration,
    /// For all answers, before they must have come at some speed.
    whole: Duration,
}

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(10),
    answer: Duration::from_secs(30),
    whole: Duration::from_secs(60),
};

/// What all answers together have taken.
#[derive(Debug)]
struct Taken {
    since: Instant,
    whole: Duration,
    bytes: u64,
}

impl Taken {
    fn new(patience: Patience) -> Self {
        Self {
            since: Instant::now(),
            whole: patience.whole,
            bytes: 0,
        }
    }

    /// Counts what came; an error where it comes too slowly ever to be done.
    fn count(&mut self, bytes: usize) -> io::Result<()> {
        self.bytes += bytes as u64;
        let due = self.whole + Duration::from_secs(self.bytes / LEAST_BYTES_A_SECOND);
        let elapsed = self.since.elapsed();
        if elapsed <= due {
            return Ok(());
        }
        let text = format!(
            "the server is too slow: {} bytes in {} s; try again later, or fetch the file, and name it here",
            self.bytes,
            elapsed.as_secs()
        );
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    }
}

/// A model's headers, and what it took to read them.
#[derive(Debug)]
pub(crate) struct RemoteModel {
    /// The model.
    pub(crate) model: Model,
    /// Bytes that were transferred.
    pub(crate) received_bytes: u64,
}

/// Whether this names a file on a web server.
pub(crate) fn is_url(name: &str) -> bool {
    let scheme = name.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    })
}

/// The name of the file that a URL ends in.
pub(crate) fn file_name(url: &str) -> &str {
    let path = parts_of(url).0;
    path.rsplit('/').next().unwrap_or(path)
}

/// Reads the headers of a model's files; given any part of a split one, those of all parts.
pub(crate) fn model(url: &str) -> anyhow::Result<RemoteModel> {
    model_by(&settings(PATIENCE).build().new_agent(), PATIENCE, url)
}

/// Reads a `config.json`.
pub(crate) fn config(url: &str) -> anyhow::Result<String> {
    config_by(&settings(PATIENCE).build().new_agent(), PATIENCE, url)
}

fn settings(patience: Patience) -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
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
}

fn model_by(agent: &Agent, patience: Patience, url: &str) -> anyhow::Result<RemoteModel> {
    let url = direct(url);
    let mut taken = Taken::new(patience);
    let first = header(agent, &mut taken, &url)?;
    let count = first.get_u32("split.count").unwrap_or(1);
    if count <= 1 {
        let model = Model::from_headers(vec![first]).with_context(|| shown(&url))?;
        return Ok(RemoteModel {
            model,
            received_bytes: taken.bytes,
        });
    }
    let (path, query) = parts_of(&url);
    let prefix = split_prefix(Path::new(path), count).filter(|_| count <= MAX_PARTS);
    let Some(prefix) = prefix else {
        bail!(
            "{}: one of {count} parts of a model, but its name does not end in \
             -0000N-of-{count:05}.gguf",
            shown(&url)
        );
    };
    let folder = &path[..path.len() - file_name(path).len()];
    let mut first = Some(first);
    let mut headers = Vec::new();
    for number in 1..=count {
        let part = format!("{folder}{prefix}-{number:05}-of-{count:05}.gguf{query}");
        if let Some(header) = first.take_if(|_| part == url) {
            headers.push(header);
        } else {
            headers.push(header(agent, &mut taken, &part)?);
        }
    }
    let model = Model::from_headers(headers).with_context(|| shown(&url))?;
    Ok(RemoteModel {
        model,
        received_bytes: taken.bytes,
    })
}

fn header(agent: &Agent, taken: &mut Taken, url: &str) -> anyhow::Result<Header> {
    let mut file = RemoteFile::open(agent, taken, url).with_context(|| shown(url))?;
    Header::read(&mut file).with_context(|| shown(url))
}

fn config_by(agent: &Agent, patience: Patience, url: &str) -> anyhow::Result<String> {
    let url = direct(url);
    let read = || -> io::Result<String> {
        let (mut response, _) = get(agent, &url, None)?;
        expect(&response, StatusCode::OK)?;
        let taken = &mut Taken::new(patience);
        let text = read_body(&mut response, MAX_CONFIG_BYTES + 1, taken)?;
        if text.len() as u64 > MAX_CONFIG_BYTES {
            return Err(other("too large for a config.json"));
        }
        String::from_utf8(text).map_err(|_| other("not text in UTF-8"))
    };
    read().with_context(|| shown(&url))
}

/// An answer, and where it came from after redirects.
fn get(agent: &Agent, url: &str, range: Option<&str>) -> io::Result<(Response<Body>, String)> {
    let mut url = url.to_owned();
    for _ in 0..=MAX_REDIRECTS {
        let mut request = agent.get(&url);
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        let response = request.call().map_err(io_error)?;
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok((response, url));
        }
        let Some(to) = text(response.headers(), header::LOCATION) else {
            return Err(other("the server redirects without saying where to"));
        };
        url = redirected(&url, to)?;
    }
    Err(other("too many redirects"))
}

/// Where a redirect leads: never to another scheme, but from HTTP to HTTPS.
fn redirected(from: &str, to: &str) -> io::Result<String> {
    let to = to.split('#').next().unwrap_or_default();
    let (from, _) = parts_of(from);
    let (scheme, rest) = from.split_once("://").unwrap_or(("", from));
    let host = &rest[..rest.find('/').unwrap_or(rest.len())];
    // A colon after a slash or a question mark is a name's.
    if let Some((other_scheme, _)) = to.split_once(':')
        && !other_scheme.contains(['/', '?'])
    {
        let secure = |scheme: &str| scheme.eq_ignore_ascii_case("https");
        if !is_url(to) || (secure(scheme) && !secure(other_scheme)) {
            return Err(other(format!(
                "the server redirects from {scheme} to another scheme, {other_scheme}: not followed"
            )));
        }
        return Ok(to.to_owned());
    }
    if to.starts_with("//") {
        return Ok(format!("{scheme}:{to}"));
    }
    if to.starts_with('/') {
        return Ok(format!("{scheme}://{host}{to}"));
    }
    if to.starts_with('?') {
        return Ok(format!("{from}{to}"));
    }
    let mut folder = rest[host.len()..]
        .rsplit_once('/')
        .map_or("", |split| split.0);
    let mut to = to;
    loop {
        if let Some(below) = to.strip_prefix("./") {
            to = below;
        } else if let Some(below) = to.strip_prefix("../") {
            folder = folder.rsplit_once('/').map_or("", |split| split.0);
            to = below;
        } else {
            return Ok(format!("{scheme}://{host}{folder}/{to}"));
        }
    }
}

/// What an answer holds, up to a length.
fn read_body(
    response: &mut Response<Body>,
    most_bytes: u64,
    taken: &mut Taken,
) -> io::Result<Vec<u8>> {
    let mut body = response.body_mut().as_reader().take(most_bytes);
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        match body.read(&mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(count) => {
                bytes.extend_from_slice(&piece[..count]);
                taken.count(count)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error(error.into())),
        }
    }
}

/// A URL without the name and the password that may stand in it.
pub(crate) fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or(host);
    format!("{scheme}://{host}{path}")
}

/// Hugging Face shows a file's page under `/blob/`, and the file itself under `/resolve/`.
fn direct(url: &str) -> String {
    let page = ["https://huggingface.co/", "https://hf.co/"]
        .iter()
        .any(|host| url.starts_with(host));
    if page {
        url.replacen("/blob/", "/resolve/", 1)
    } else {
        url.to_owned()
    }
}

/// A URL up to its file's name, and what follows it.
fn parts_of(url: &str) -> (&str, &str) {
    url.split_at(url.find(['?', '#']).unwrap_or(url.len()))
}

/// A file on a web server. Reading front to back keeps one range at a time, each twice as long
/// as the one before.
#[derive(Debug)]
struct RemoteFile<'t> {
    agent: Agent,
    taken: &'t mut Taken,
    requests: u64,
    /// Where the file really lies, after redirects.
    url: String,
    /// The file's size.
    bytes: u64,
    /// What the server calls this version of the file.
    version: Option<String>,
    position: u64,
    window_start: u64,
    window: Vec<u8>,
    range_bytes: u64,
    received_bytes: u64,
}

impl<'t> RemoteFile<'t> {
    /// Asks for the file's first bytes.
    fn open(agent: &Agent, taken: &'t mut Taken, url: &str) -> io::Result<Self> {
        let mut file = Self {
            agent: agent.clone(),
            taken,
            requests: 0,
            url: url.to_owned(),
            bytes: 0,
            version: None,
            position: 0,
            window_start: 0,
            window: Vec::new(),
            range_bytes: FIRST_RANGE_BYTES,
            received_bytes: 0,
        };
        file.fetch()?;
        Ok(file)
    }

    /// Reads the range at the position into the window.
    fn fetch(&mut self) -> io::Result<()> {
        let mut attempt = 1;
        loop {
            match self.fetch_once() {
                Err(error) if attempt < ATTEMPTS && is_broken_connection(&error) => attempt += 1,
                result => return result,
            }
        }
    }

    fn fetch_once(&mut self) -> io::Result<()> {
        if self.received_bytes > MAX_HEADER_BYTES + MAX_RANGE_BYTES {
            return Err(other("more was read than any header holds"));
        }
        self.requests += 1;
        if self.requests > MAX_REQUESTS {
            return Err(other("it takes more requests than any header does"));
        }
        let start = self.position;
        let end = start + self.range_bytes;
        let range = format!("bytes={start}-{}", end - 1);
        let (mut response, url) = get(&self.agent, &self.url, Some(&range))?;
        self.taken.count(0)?;
        if response.status() == StatusCode::OK {
            return Err(other(
                "the server does not send parts of a file, only the whole: fetch it, and name it here",
            ));
        }
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(other("the file is empty, or shorter than the server said"));
        }
        expect(&response, StatusCode::PARTIAL_CONTENT)?;
        let headers = response.headers();
        if text(headers, header::CONTENT_ENCODING).is_some_and(|packed| packed != "identity") {
            return Err(other("the server sends the file packed"));
        }
        let range = text(headers, header::CONTENT_RANGE).and_then(ContentRange::parse);
        let Some(range) = range.filter(|range| range.start == start && range.end <= end) else {
            return Err(other(
                "the server sent another part of the file than was asked for",
            ));
        };
        if range.file_bytes > MAX_FILE_BYTES {
            return Err(other(format!(
                "the server says that the file has {} bytes, which no model has",
                range.file_bytes
            )));
        }
        if range.end != end.min(range.file_bytes) {
            return Err(other(
                "the server sends less of the file than was asked for: fetch it, and name it here",
            ));
        }
        let version = text(headers, header::ETAG).map(str::to_owned);
        let known = self.bytes > 0;
        if known && (range.file_bytes != self.bytes || version != self.version) {
            return Err(other(
                "the file changed while it was being read: start again",
            ));
        }
        let length = range.end - range.start;
        let before = self.taken.bytes;
        let read = read_body(&mut response, length, self.taken);
        self.received_bytes += self.taken.bytes - before;
        let window = read?;
        if window.len() as u64 != length {
            return Err(broken());
        }
        if !known {
            (self.bytes, self.version, self.url) = (range.file_bytes, version, url);
        }
        (self.window_start, self.window) = (start, window);
        self.range_bytes = (self.range_bytes * 2).min(MAX_RANGE_BYTES);
        Ok(())
    }
}

impl Read for RemoteFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.bytes || buffer.is_empty() {
            return Ok(0);
        }
        let window_end = self.window_start + self.window.len() as u64;
        if !(self.window_start..window_end).contains(&self.position) {
            self.fetch()?;
        }
        let offset = (self.position - self.window_start) as usize;
        let count = (&self.window[offset..]).read(buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for RemoteFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.bytes.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// What a `Content-Range` says: a half-open range, and the size of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContentRange {
    start: u64,
    end: u64,
    file_bytes: u64,
}

impl ContentRange {
    /// Reads `bytes 0-99/1000`. A range that is empty or ends after the file is none.
    fn parse(text: &str) -> Option<Self> {
        let (range, file_bytes) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (start, last) = range.split_once('-')?;
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let range = Self {
            start: number(start)?,
            end: number(last)?.checked_add(1)?,
            file_bytes: number(file_bytes)?,
        };
        (range.start < range.end && range.end <= range.file_bytes).then_some(range)
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn expect(response: &Response<Body>, wanted: StatusCode) -> io::Result<()> {
    let status = response.status();
    if status == wanted {
        return Ok(());
    }
    let hint = match status.as_u16() {
        401 | 403 => ": it may need a login; fetch the file, and name it here",
        404 => ": there is no such file",
        429 | 500.. => ": try again later",
        _ => "",
    };
    Err(other(format!("the server answered {status}{hint}")))
}

fn other(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}

/// The error below, in words for who named the URL.
fn io_error(error: ureq::Error) -> io::Error {
    match error {
        // Not the end of the file, which is what it would be taken for.
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => broken(),
        ureq::Error::Io(error) => error,
        ureq::Error::Timeout(_) => {
            io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time")
        }
        ureq::Error::HostNotFound => other("no such server"),
        // Without the address, which may have a password in it.
        ureq::Error::BadUri(_) => other("not the address of a file on a web server"),
        error => other(error.to_string()),
    }
}

fn broken() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the connection broke before the whole answer had come",
    )
}

fn is_broken_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

#[cfg(test)]
mod tests;
