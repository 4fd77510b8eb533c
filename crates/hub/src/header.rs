//! The header of a GGUF file on a web server.

use std::io::{self, Read, Seek, SeekFrom};
use std::thread;

use brigade_gguf::header::MAX_HEADER_BYTES;
use brigade_gguf::{GgufError, Header};

use crate::client::Pace;
use crate::{Client, FetchError, HubError, Location, RangeReader, RemoteFile, url};

/// The first range; holds the header of most models without a large vocabulary.
pub(crate) const FIRST_RANGE_BYTES: u64 = 256 << 10;
/// The largest range: fewer requests would not be noticed any more.
const MAX_RANGE_BYTES: u64 = 4 << 20;
/// How often a range is asked for when that fails in a way that may pass.
pub(crate) const ATTEMPTS: u32 = 3;

/// A header, the file that it is of, and its bytes.
#[derive(Debug)]
pub(crate) struct ReadHeader {
    pub(crate) header: Header,
    pub(crate) file: RemoteFile,
    pub(crate) bytes: Vec<u8>,
}

/// Reads the header of a file.
pub(crate) fn read(
    client: &Client,
    pace: &mut Pace,
    location: Location,
) -> Result<ReadHeader, HubError> {
    let at = location.url(client);
    let shown = url::shown(&at);
    let mut start = Start {
        reader: RangeReader::new(client, at),
        client,
        pace,
        bytes: Vec::new(),
        position: 0,
        range_bytes: FIRST_RANGE_BYTES,
    };
    // What a server does is no fault of the file.
    let fetch = |error| HubError::Fetch {
        place: shown.clone(),
        error,
    };
    start.fetch().map_err(fetch)?;
    let header = Header::read(&mut start).map_err(|error| match error {
        GgufError::Read(error) => fetch(error.into()),
        error => HubError::Gguf {
            place: shown.clone(),
            error,
        },
    })?;
    let Start {
        reader, mut bytes, ..
    } = start;
    bytes.truncate(header.data_offset() as usize);
    Ok(ReadHeader {
        file: RemoteFile {
            location,
            bytes: header.file_bytes(),
            version: reader.version().map(str::to_owned),
        },
        header,
        bytes,
    })
}

/// The start of a file, as far as it has been read: front to back, each range twice as long as
/// the one before.
struct Start<'a> {
    reader: RangeReader,
    client: &'a Client,
    pace: &'a mut Pace,
    bytes: Vec<u8>,
    position: u64,
    range_bytes: u64,
}

impl Start<'_> {
    /// Reads one range more.
    fn fetch(&mut self) -> Result<(), FetchError> {
        let mut wait = self.client.patience().again;
        for _ in 1..ATTEMPTS {
            let known = self.bytes.len();
            match self.fetch_once() {
                Err(error) if error.retry => self.bytes.truncate(known),
                result => return result,
            }
            thread::sleep(wait);
            wait *= 2;
        }
        self.fetch_once()
    }

    fn fetch_once(&mut self) -> Result<(), FetchError> {
        let start = self.bytes.len() as u64;
        if start > MAX_HEADER_BYTES {
            return Err(FetchError::lasting("more was read than any header holds"));
        }
        let (bytes, pace) = (&mut self.bytes, &mut *self.pace);
        self.reader
            .read(start, start + self.range_bytes, &mut |piece| {
                bytes.extend_from_slice(piece);
                pace.count(piece.len())
            })?;
        self.range_bytes = (self.range_bytes * 2).min(MAX_RANGE_BYTES);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.reader.bytes().unwrap_or_default()
    }
}

impl Read for Start<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.len() || buffer.is_empty() {
            return Ok(0);
        }
        while self.position >= self.bytes.len() as u64 {
            self.fetch()?;
        }
        let count = (&self.bytes[self.position as usize..]).read(buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Start<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.len().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
