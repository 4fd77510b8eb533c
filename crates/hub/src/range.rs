//! A file on a web server, one range at a time.

use ureq::Body;
use ureq::http::{Response, StatusCode, header};

use crate::client::{Answer, Client, read_body, text};
use crate::{FetchError, RemoteFile};

/// The largest file that can be a model's.
const MAX_FILE_BYTES: u64 = 1 << 50;

/// Reads ranges of one file, and sees to it that all are of the same version of it.
///
/// `ETag` and size of every answer are compared, so `If-Range` could tell nothing more; and a
/// server that gets it wrong would send the whole file.
#[derive(Debug)]
pub struct RangeReader {
    client: Client,
    /// Where the file was asked for.
    origin: String,
    /// Where it really lies, after redirects; such addresses may be good for an hour only.
    direct: Option<String>,
    /// The file's size, once it is known.
    bytes: Option<u64>,
    /// What the last server calls this version.
    etag: Option<String>,
    /// What the first one calls it; the same for everybody.
    linked: Option<String>,
    /// What it must be called, by whoever saw it before.
    expected: Option<String>,
}

impl RangeReader {
    pub(crate) fn new(client: &Client, origin: String) -> Self {
        Self {
            client: client.clone(),
            origin,
            direct: None,
            bytes: None,
            etag: None,
            linked: None,
            expected: None,
        }
    }

    /// Of a file that was seen before: another size or version is an error.
    pub fn of(client: &Client, file: &RemoteFile) -> Self {
        Self {
            bytes: Some(file.bytes),
            expected: file.version.clone(),
            ..Self::new(client, file.location.url(client))
        }
    }

    /// The file's size, after the first range.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// What the file's version is called, after the first range.
    pub(crate) fn version(&self) -> Option<&str> {
        self.linked.as_deref().or(self.etag.as_deref())
    }

    /// Reads from byte `start` up to before `end`, and hands on what comes. Until the size is
    /// known, the range may reach beyond the file's end. `each` may break off with an error.
    pub fn read(
        &mut self,
        start: u64,
        end: u64,
        each: &mut dyn FnMut(&[u8]) -> Result<(), FetchError>,
    ) -> Result<(), FetchError> {
        let asked = format!("bytes={start}-{}", end - 1);
        let from = self.direct.as_deref().unwrap_or(&self.origin);
        let mut answer = self.client.get(from, Some(&asked))?;
        let status = answer.response.status().as_u16();
        if matches!(status, 400 | 401 | 403 | 404 | 410) && self.direct.take().is_some() {
            // A signed address has expired: the first one gives another.
            answer = self.client.get(&self.origin, Some(&asked))?;
        }
        let (mut response, length) = self.check(answer, start, end)?;
        let mut got = 0;
        read_body(&mut response, length, &mut |piece| {
            got += piece.len() as u64;
            each(piece)
        })?;
        if got == length {
            Ok(())
        } else {
            Err(FetchError::broken())
        }
    }

    /// Judges the head of an answer; returns it with the length that its body must have.
    fn check(
        &mut self,
        answer: Answer,
        start: u64,
        end: u64,
    ) -> Result<(Response<Body>, u64), FetchError> {
        if answer.response.status() == StatusCode::OK {
            return Err(FetchError::lasting(
                "the server does not send parts of a file, only the whole: fetch it, and name it \
                 here",
            ));
        }
        if answer.response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(FetchError::lasting(
                "the file is empty, or shorter than the server said",
            ));
        }
        self.client.expect(&answer, StatusCode::PARTIAL_CONTENT)?;
        let headers = answer.response.headers();
        if text(headers, header::CONTENT_ENCODING).is_some_and(|packed| packed != "identity") {
            return Err(FetchError::lasting("the server sends the file packed"));
        }
        let range = text(headers, header::CONTENT_RANGE).and_then(ContentRange::parse);
        let Some(range) = range.filter(|range| range.start == start && range.end <= end) else {
            return Err(FetchError::lasting(
                "the server sent another part of the file than was asked for",
            ));
        };
        if range.file_bytes > MAX_FILE_BYTES {
            return Err(FetchError::lasting(format!(
                "the server says that the file has {} bytes, which no model has",
                range.file_bytes
            )));
        }
        let etag = text(headers, header::ETAG).map(str::to_owned);
        self.same(&answer, etag, range.file_bytes)?;
        if range.end != end.min(range.file_bytes) {
            return Err(FetchError::lasting(
                "the server sends less of the file than was asked for: fetch it, and name it here",
            ));
        }
        if answer.url != self.origin {
            self.direct = Some(answer.url);
        }
        Ok((answer.response, range.end - range.start))
    }

    /// Compares the version that an answer is of with what is known, and learns what is not.
    fn same(
        &mut self,
        answer: &Answer,
        etag: Option<String>,
        file_bytes: u64,
    ) -> Result<(), FetchError> {
        let changed =
            || FetchError::lasting("the file changed while it was being read: start again");
        if self.bytes.is_some_and(|bytes| bytes != file_bytes) {
            return Err(changed());
        }
        match (&self.linked, &answer.linked_version) {
            // Asked by way of the hub again: its word counts, whichever server it named.
            (Some(known), Some(now)) if known != now => return Err(changed()),
            (Some(_), Some(_)) => {}
            _ if self.etag.is_some() && self.etag != etag => return Err(changed()),
            _ => {}
        }
        if let Some(version) = &answer.linked_version {
            self.linked = Some(version.clone());
        }
        let told = self.linked.as_ref().or(etag.as_ref());
        if let (Some(expected), Some(told)) = (&self.expected, told)
            && expected != told
        {
            return Err(changed());
        }
        self.bytes = Some(file_bytes);
        self.etag = etag;
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_are_none() {
        let range = |start, end, file_bytes| {
            Some(ContentRange {
                start,
                end,
                file_bytes,
            })
        };
        let cases = [
            ("bytes 0-99/1000", range(0, 100, 1000)),
            ("bytes 999-999/1000", range(999, 1000, 1000)),
            ("bytes 0-1000/1000", None),
            ("bytes 5-4/1000", None),
            ("bytes 0-99/*", None),
            ("bytes */1000", None),
            ("bytes 0-18446744073709551615/18446744073709551615", None),
            ("0-99/1000", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(ContentRange::parse(text), expected, "{text}");
        }
    }
}
