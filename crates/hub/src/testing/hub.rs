//! A hub with one repository, whose files lie on a server of their own.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use brigade_gguf::{Array, Builder, GgmlType, Layout, NewTensor, Segment, TensorData, Text, Value};
use serde_json::json;

use super::{Request, Server, head, part_fields};

/// Where no file's weights begin before, in the tests that need it.
const HEADER_BYTES: u64 = 1 << 20;

/// The one commit of the repository.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What a file holds; it need not be in memory.
#[derive(Debug, Clone)]
pub enum Content {
    /// These bytes.
    Bytes(Arc<Vec<u8>>),
    /// Literal bytes and zeros.
    Layout(Arc<Layout>),
}

impl Content {
    /// A llama of about 400 GB with a vocabulary as large as real ones, without its weights.
    pub fn huge() -> Self {
        let layers = 126;
        let (width, feed) = (16_384, 53_248);
        let vocabulary = 151_936;
        let mut builder = Builder::new();
        builder
            .set("general.architecture", "llama".into())
            .set("llama.block_count", Value::U32(layers))
            .set("llama.embedding_length", Value::U32(width as u32))
            .set("llama.context_length", Value::U32(131_072))
            .set("llama.feed_forward_length", Value::U32(feed as u32))
            .set("llama.attention.head_count", Value::U32(128))
            .set("llama.attention.head_count_kv", Value::U32(8))
            .set("general.note", Value::String(Text(vec![b'x'; 8 << 20])))
            .set(
                "tokenizer.ggml.scores",
                Value::Array(Array::of_bool(&vec![true; vocabulary])),
            );
        let mut tensor = |name: String, dims: Vec<u64>, ggml_type| {
            builder.tensor(NewTensor {
                name,
                dims,
                ggml_type,
                data: TensorData::Zeros,
            });
        };
        tensor(
            "token_embd.weight".into(),
            vec![width, vocabulary as u64],
            GgmlType::Q8_0,
        );
        for layer in 0..layers {
            for (name, dims) in [
                ("attn_q", vec![width, width]),
                ("attn_k", vec![width, 1024]),
                ("attn_v", vec![width, 1024]),
                ("attn_output", vec![width, width]),
                ("ffn_gate", vec![width, feed]),
                ("ffn_up", vec![width, feed]),
                ("ffn_down", vec![feed, width]),
            ] {
                tensor(format!("blk.{layer}.{name}.weight"), dims, GgmlType::Q8_0);
            }
            tensor(
                format!("blk.{layer}.attn_norm.weight"),
                vec![width],
                GgmlType::F32,
            );
            tensor(
                format!("blk.{layer}.ffn_norm.weight"),
                vec![width],
                GgmlType::F32,
            );
        }
        Self::Layout(Arc::new(builder.layout().unwrap()))
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Layout(layout) => layout.len(),
        }
    }

    fn read(&self, start: u64, end: u64) -> Vec<u8> {
        let layout = match self {
            Self::Bytes(bytes) => return bytes[start as usize..end as usize].to_vec(),
            Self::Layout(layout) => layout,
        };
        let mut out = vec![0; (end - start) as usize];
        let mut at = 0;
        for segment in layout.segments() {
            let (from, to) = (start.max(at), end.min(at + segment.len()));
            if let (Segment::Bytes(bytes), true) = (segment, from < to) {
                out[(from - start) as usize..(to - start) as usize]
                    .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
            }
            at += segment.len();
        }
        out
    }
}

/// How it behaves.
#[derive(Debug, Default)]
struct Mood {
    down: bool,
    /// Only the files are.
    files_down: bool,
    /// From this byte of a file on it sends so many bytes a second.
    slow: Option<(u64, u64)>,
    token: Option<String>,
    /// Signed addresses are good for so many requests.
    signature_uses: Option<u32>,
    uses: HashMap<String, u32>,
    signatures: u32,
    etag: String,
    /// Bytes of files that were sent.
    served_bytes: u64,
    /// Answers with files that are under way.
    sending: u32,
}

/// A hub with one repository.
#[derive(Debug)]
pub struct TestHub {
    hub: Server,
    store: Server,
    mood: Arc<Mutex<Mood>>,
}

impl TestHub {
    /// A hub with a repository of these files.
    pub fn start(repo: &str, files: &[(&str, Content)]) -> Self {
        let files: HashMap<String, Content> = files
            .iter()
            .map(|(path, content)| ((*path).to_owned(), content.clone()))
            .collect();
        let mood = Arc::new(Mutex::new(Mood {
            etag: "\"v1\"".to_owned(),
            ..Mood::default()
        }));
        let (state, kept) = (Arc::clone(&mood), files.clone());
        let store = Server::serve(move |stream, request| {
            state.lock().unwrap().sending += 1;
            let sent = send(&state, &kept, stream, request);
            state.lock().unwrap().sending -= 1;
            sent
        });
        let (state, store_address) = (Arc::clone(&mood), store.address.clone());
        let api = format!("/api/models/{repo}/revision/");
        let resolve = format!("/{repo}/resolve/{COMMIT}/");
        let hub = Server::start(move |request| {
            let mut mood = state.lock().unwrap();
            if mood.down {
                return head("503 Service Unavailable", "", 0);
            }
            let bearer = mood.token.as_ref().map(|token| format!("Bearer {token}"));
            if bearer.is_some() && bearer != request.authorization {
                return head("401 Unauthorized", "", 0);
            }
            if request.path.starts_with(&api) {
                let listed: Vec<_> = files
                    .iter()
                    .map(|(path, content)| json!({ "rfilename": path, "size": content.size() }))
                    .collect();
                let body = json!({ "sha": COMMIT, "siblings": listed }).to_string();
                return [head("200 OK", "", body.len() as u64), body.into_bytes()].concat();
            }
            let path = request.path.strip_prefix(&resolve).unwrap_or_default();
            if !files.contains_key(path) {
                return head("404 Not Found", "", 0);
            }
            mood.signatures += 1;
            let fields = format!(
                "location: {store_address}/{path}?signed={}\r\nx-linked-etag: {}\r\n",
                mood.signatures, mood.etag
            );
            head("302 Found", &fields, 0)
        });
        Self { hub, store, mood }
    }

    fn mood(&self) -> MutexGuard<'_, Mood> {
        self.mood.lock().unwrap()
    }

    /// What `HF_ENDPOINT` has to be.
    pub fn endpoint(&self) -> &str {
        &self.hub.address
    }

    /// Whether it answers with errors only.
    pub fn set_down(&self, down: bool) {
        self.mood().down = down;
    }

    /// Whether its files cannot be had; what there is it still says, and the first bytes, too.
    pub fn set_files_down(&self, down: bool) {
        self.mood().files_down = down;
    }

    /// From now on it sends so many bytes a second of each range that begins at or after
    /// `start`.
    pub fn set_speed_after(&self, start: u64, bytes_per_second: u64) {
        self.mood().slow = Some((start, bytes_per_second));
    }

    /// From now on it asks for this token.
    pub fn set_token(&self, token: &str) {
        self.mood().token = Some(token.to_owned());
    }

    /// From now on the addresses that it redirects to are good for so many requests.
    pub fn set_signature_uses(&self, uses: u32) {
        self.mood().signature_uses = Some(uses);
    }

    /// From now on its files are of another version.
    pub fn set_version(&self, etag: &str) {
        etag.clone_into(&mut self.mood().etag);
    }

    /// Bytes of files that it has sent.
    pub fn served_bytes(&self) -> u64 {
        self.mood().served_bytes
    }

    /// Requests for files that it is answering.
    pub fn sending(&self) -> u32 {
        self.mood().sending
    }

    /// What the hub itself was asked.
    pub fn asked(&self) -> Vec<Request> {
        self.hub.seen()
    }

    /// What the server of its files was asked.
    pub fn asked_for_files(&self) -> Vec<Request> {
        self.store.seen()
    }
}

/// Sends a range of a file.
fn send(
    mood: &Mutex<Mood>,
    files: &HashMap<String, Content>,
    stream: &mut TcpStream,
    request: &Request,
) -> io::Result<()> {
    let (path, etag) = {
        let mut mood = mood.lock().unwrap();
        let uses = mood.uses.entry(request.path.clone()).or_default();
        *uses += 1;
        let count = *uses;
        let beginning = request.range.is_some_and(|(start, _)| start < HEADER_BYTES);
        if mood.down || (mood.files_down && !beginning) {
            return stream.write_all(&head("503 Service Unavailable", "", 0));
        }
        if mood.signature_uses.is_some_and(|most| count > most) {
            return stream.write_all(&head("403 Forbidden", "", 0));
        }
        let path = request.path.trim_start_matches('/');
        let path = path.split('?').next().unwrap_or(path).to_owned();
        (path, mood.etag.clone())
    };
    let Some(content) = files.get(&path) else {
        return stream.write_all(&head("404 Not Found", "", 0));
    };
    let (start, end) = request.range.unwrap_or((0, content.size()));
    let end = end.min(content.size());
    let fields = part_fields(start, end, content.size(), &etag);
    stream.write_all(&head("206 Partial Content", &fields, end - start))?;
    let mut at = start;
    while at < end {
        let slow = mood.lock().unwrap().slow;
        let speed = slow.and_then(|(from, speed)| (start >= from).then_some(speed));
        let piece = speed.map_or(64 << 10, |speed| (speed / 100).max(1));
        let next = end.min(at + piece);
        stream.write_all(&content.read(at, next))?;
        mood.lock().unwrap().served_bytes += next - at;
        at = next;
        if speed.is_some() {
            thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}
