//! A small HTTP client, to see the bytes that no library has touched.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::SOON;

/// What comes in a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// A chunk or an error object.
    Data(Value),
    /// `[DONE]`.
    Done,
}

/// An answer that comes event by event.
#[derive(Debug)]
pub(crate) struct Stream {
    events: mpsc::Receiver<Event>,
    /// The connection: to break it off.
    pub(crate) connection: TcpStream,
}

/// The body of a chat request with one message.
pub(crate) fn chat(content: &str, max_tokens: u32, extra: &Value) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "temperature": 0,
    });
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// Gets a path; gives the status and the JSON.
pub(crate) fn get(api: &str, path: &str) -> (u16, Value) {
    whole(open(api, &format!("GET {path}"), ""))
}

/// The status of a path alone, whatever comes with it.
pub(crate) fn status(api: &str, path: &str) -> u16 {
    open(api, &format!("GET {path}"), "").0
}

/// Posts a chat request; gives the status and the JSON.
pub(crate) fn post(api: &str, body: &Value) -> (u16, Value) {
    whole(open(api, "POST /v1/chat/completions", &body.to_string()))
}

/// Posts to a path with one more header line; gives the status and the JSON.
pub(crate) fn post_with(api: &str, path: &str, header: &str, body: &Value) -> (u16, Value) {
    whole(open_with(
        api,
        &format!("POST {path}"),
        header,
        &body.to_string(),
    ))
}

/// The count in a line of `/metrics`.
pub(crate) fn metric(api: &str, name: &str) -> u64 {
    measure(api, name) as u64
}

/// The number in a line of `/metrics`.
pub(crate) fn measure(api: &str, name: &str) -> f64 {
    let (_, mut body, _) = open(api, "GET /metrics", "");
    let mut text = String::new();
    body.read_to_string(&mut text).unwrap();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("no {name} in {text}"));
    value.parse().unwrap()
}

fn whole((status, mut body, _): (u16, Body, TcpStream)) -> (u16, Value) {
    let mut text = String::new();
    body.read_to_string(&mut text).unwrap();
    (status, serde_json::from_str(&text).unwrap())
}

impl Stream {
    /// Posts a chat request for a stream.
    pub(crate) fn open(api: &str, body: &Value) -> Self {
        let mut body = body.clone();
        body["stream"] = true.into();
        let (status, reply, connection) = open(api, "POST /v1/chat/completions", &body.to_string());
        assert_eq!(status, 200);
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(reply).lines().map_while(Result::ok) {
                let event = match line.strip_prefix("data: ") {
                    Some("[DONE]") => Event::Done,
                    Some(data) => Event::Data(serde_json::from_str(data).unwrap()),
                    None => continue,
                };
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Self { events, connection }
    }

    /// The next event; `None` when the stream has ended.
    pub(crate) fn next(&self) -> Option<Event> {
        match self.events.recv_timeout(SOON) {
            Ok(event) => Some(event),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("no event within {SOON:?}"),
        }
    }

    /// Events until none comes for `quiet`; `None` if the stream ended first.
    pub(crate) fn until_quiet(&self, quiet: Duration) -> Option<Vec<Event>> {
        let mut events = Vec::new();
        loop {
            match self.events.recv_timeout(quiet) {
                Ok(event) => events.push(event),
                Err(mpsc::RecvTimeoutError::Timeout) => return Some(events),
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Events until at least `count` of them have text.
    pub(crate) fn some_text(&self, count: usize) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        while events
            .iter()
            .filter(|event| !event.text().is_empty())
            .count()
            < count
        {
            events.push(self.next().expect("the stream ended early"));
        }
        events
    }

    /// All events to the end.
    pub(crate) fn rest(&self) -> Vec<Event> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

impl Event {
    /// The text that a chunk adds.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Data(chunk) => chunk["choices"][0]["delta"]["content"].as_str(),
            Self::Done => None,
        }
        .unwrap_or_default()
    }
}

fn open(api: &str, request: &str, body: &str) -> (u16, Body, TcpStream) {
    open_with(api, request, "", body)
}

fn open_with(api: &str, request: &str, header: &str, body: &str) -> (u16, Body, TcpStream) {
    let mut connection = TcpStream::connect(api).unwrap();
    connection.set_read_timeout(Some(SOON)).unwrap();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: {api}\r\nconnection: close\r\n{header}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(body.as_bytes()).unwrap();
    let mut reply = BufReader::new(connection.try_clone().unwrap());
    let status = read_line(&mut reply).unwrap();
    let status = status.split(' ').nth(1).unwrap().parse().unwrap();
    let mut chunked = false;
    loop {
        match read_line(&mut reply).unwrap().to_lowercase().as_str() {
            "" => break,
            "transfer-encoding: chunked" => chunked = true,
            _ => {}
        }
    }
    let body = Body {
        reply,
        chunk: if chunked { Chunk::Left(0) } else { Chunk::None },
    };
    (status, body, connection)
}

fn read_line(reply: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reply.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// The body of a reply, without the frame of chunks.
struct Body {
    reply: BufReader<TcpStream>,
    chunk: Chunk,
}

enum Chunk {
    /// The body ends with the connection.
    None,
    /// Bytes left of this chunk.
    Left(u64),
    /// The last chunk was read.
    Over,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Chunk::Left(0) = self.chunk {
            let size = u64::from_str_radix(&read_line(&mut self.reply)?, 16);
            // A connection that breaks off has no size here.
            self.chunk = match size.map_err(|_| io::ErrorKind::UnexpectedEof)? {
                0 => Chunk::Over,
                size => Chunk::Left(size),
            };
        }
        match &mut self.chunk {
            Chunk::None => self.reply.read(buffer),
            Chunk::Over => Ok(0),
            Chunk::Left(left) => {
                let read = (&mut self.reply).take(*left).read(buffer)?;
                *left -= read as u64;
                if *left == 0 {
                    read_line(&mut self.reply)?;
                }
                Ok(read)
            }
        }
    }
}
