//! Web servers on this machine, for tests.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails where it stands"
)]

mod hub;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

pub use hub::{COMMIT, Content, TestHub};

/// A request: its path with the query, the range that it asks for, half-open, and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Path and query.
    pub path: String,
    /// First byte, and the one after the last.
    pub range: Option<(u64, u64)>,
    /// The `Authorization` field.
    pub authorization: Option<String>,
}

/// Answers every request with the bytes that a function gives for it. No bytes at all: the
/// connection stays open and silent until the other side gives up.
#[derive(Debug)]
pub struct Server {
    /// `http://127.0.0.1:port`.
    pub address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Starts it, for as long as the process lives.
    pub fn start(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::serve(move |stream, request| {
            let bytes = answer(request);
            stream.write_all(&bytes)?;
            if bytes.is_empty() {
                let _ = stream.read(&mut [0]);
            }
            Ok(())
        })
    }

    /// One that waits after each byte of a body.
    pub fn dripping(
        pause: Duration,
        answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::serve(move |stream, request| {
            let bytes = answer(request);
            let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
            stream.write_all(&bytes[..head])?;
            for byte in &bytes[head..] {
                stream.write_all(&[*byte])?;
                thread::sleep(pause);
            }
            Ok(())
        })
    }

    /// A server of one file, whatever its name.
    pub fn of(file: Vec<u8>) -> Self {
        Self::start(move |request| part(&file, request, "\"v1\""))
    }

    fn serve(
        answer: impl Fn(&mut TcpStream, &Request) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, answer) = (stream.unwrap(), Arc::clone(&answer));
                let log = Arc::clone(&log);
                thread::spawn(move || {
                    let Some(request) = read_request(&stream) else {
                        return;
                    };
                    log.lock().unwrap().push(request.clone());
                    // Whoever has seen enough closes the connection.
                    let _ = answer(&mut stream, &request);
                });
            }
        });
        Self { address, seen }
    }

    /// The address of a file here.
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.address)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let (mut range, mut authorization) = (None, None);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let (start, last) = value.strip_prefix("bytes=")?.split_once('-')?;
                range = Some((start.parse().ok()?, last.parse::<u64>().ok()? + 1));
            }
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(Request {
        path,
        range,
        authorization,
    })
}

/// The part of a file that is asked for, as an answer.
pub fn part(file: &[u8], request: &Request, etag: &str) -> Vec<u8> {
    let size = file.len() as u64;
    let (start, end) = request.range.unwrap();
    if start >= size {
        return head("416 Range Not Satisfiable", "", 0);
    }
    let end = end.min(size);
    let fields = part_fields(start, end, size, etag);
    let body = file[start as usize..end as usize].to_vec();
    [head("206 Partial Content", &fields, end - start), body].concat()
}

fn part_fields(start: u64, end: u64, size: u64, etag: &str) -> String {
    let last = end - 1;
    format!("content-range: bytes {start}-{last}/{size}\r\netag: {etag}\r\n")
}

/// The head of an answer.
pub fn head(status: &str, fields: &str, length: u64) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{fields}content-length: {length}\r\nconnection: close\r\n\r\n")
        .into_bytes()
}
