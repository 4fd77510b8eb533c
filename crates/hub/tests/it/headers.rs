//! The header of a file on a server, and nothing else of it.

use std::io;
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Duration;

use brigade_gguf::testing::TinyModel;
use brigade_gguf::{Header, Text, Value};
use brigade_hub::testing::{Request, Server, head, part};
use brigade_hub::{Client, Patience, Settings};

use super::{read, refusal, settings};

fn patiently(patience: Patience) -> Client {
    Client::new(Settings {
        patience,
        ..settings()
    })
}

#[test]
fn only_the_header_of_a_large_file() {
    let file = TinyModel::llama(64).to_bytes();
    let size = file.len() as u64;
    let server = Server::of(file);
    let read = read(&server.url("tiny.gguf")).unwrap();
    assert_eq!(read.model.file_bytes(), size);
    assert_eq!(read.model.header().block_count().unwrap(), 64);
    assert!(size > 7 << 20, "{size}");
    assert_eq!(read.received_bytes, 262_144);
    assert_eq!(server.requests(), 1);
}

#[test]
fn a_long_header_in_growing_ranges() {
    let long = Value::String(Text("x".repeat(3 << 20).into_bytes()));
    let file = TinyModel::llama(32)
        .with_key("general.note", long)
        .to_bytes();
    let expected = Header::read(&mut io::Cursor::new(&file)).unwrap();
    let server = Server::of(file);
    let read = read(&server.url("tiny.gguf")).unwrap();
    assert_eq!(read.model.header().hash(), expected.hash());
    assert!(read.received_bytes < 2 * expected.data_offset() + 262_144);
    assert_eq!(server.requests(), 4);
}

#[test]
fn every_part_of_a_split_model() {
    let parts = TinyModel::llama(8).to_parts(3);
    let server = Server::start(move |request| {
        let (path, query) = request.path.split_once('?').unwrap();
        assert_eq!(query, "download=true");
        let number: usize = path.strip_prefix("/m/tiny-0000").unwrap()[..1]
            .parse()
            .unwrap();
        part(&parts[number - 1], request, "\"v1\"")
    });
    let read = read(&server.url("m/tiny-00002-of-00003.gguf?download=true")).unwrap();
    assert_eq!(read.model.parts().len(), 3);
    assert_eq!(server.requests(), 3);
}

#[test]
fn a_part_without_the_others_names() {
    let parts = TinyModel::llama(8).to_parts(3);
    let server = Server::of(parts[0].clone());
    let refusal = refusal(&server.url("first.gguf"));
    assert!(
        refusal.contains("one of 3 parts of a model, but its name"),
        "{refusal}"
    );
}

#[test]
fn redirects_are_followed_once() {
    let long = Value::String(Text("x".repeat(400 << 10).into_bytes()));
    let file = TinyModel::llama(4)
        .with_key("general.note", long)
        .to_bytes();
    let store = Server::of(file);
    let target = store.url("really/here?signed=1");
    let server = Server::start(move |_| head("302 Found", &format!("location: {target}\r\n"), 0));
    read(&server.url("tiny.gguf")).unwrap();
    assert_eq!((server.requests(), store.requests()), (1, 2));
    let endless = Server::start(|_| head("302 Found", "location: /again\r\n", 0));
    assert!(refusal(&endless.url("tiny.gguf")).contains("redirects"));
}

#[test]
fn a_server_without_ranges_sends_nothing() {
    let server = Server::start(|_| [head("200 OK", "", 1 << 40), vec![0; 1 << 16]].concat());
    let refusal = refusal(&server.url("tiny.gguf"));
    assert!(refusal.contains("only the whole: fetch it"), "{refusal}");
    assert_eq!(server.requests(), 1);
}

#[test]
fn what_servers_refuse() {
    for (status, said) in [
        ("404 Not Found", "404 Not Found: there is no such file"),
        ("401 Unauthorized", "401 Unauthorized: it may need a login"),
        (
            "503 Service Unavailable",
            "503 Service Unavailable: try again later",
        ),
        ("416 Range Not Satisfiable", "the file is empty"),
        ("204 No Content", "204 No Content"),
    ] {
        let server = Server::start(move |_| head(status, "", 0));
        let url = server.url("tiny.gguf");
        let refusal = refusal(&url);
        assert!(
            refusal.starts_with(&url) && refusal.contains(said),
            "{refusal}"
        );
    }
}

#[test]
fn a_file_that_changes_meanwhile() {
    let long = Value::String(Text("x".repeat(400 << 10).into_bytes()));
    let file = TinyModel::llama(4)
        .with_key("general.note", long)
        .to_bytes();
    let longer = [file.clone(), vec![0]].concat();
    let other_tag = file.clone();
    let of_size = Server::start({
        let file = file.clone();
        move |request| match request.range.unwrap().0 {
            0 => part(&file, request, "\"v1\""),
            _ => part(&longer, request, "\"v1\""),
        }
    });
    let of_tag = Server::start(move |request| {
        let version = format!("\"v{}\"", request.range.unwrap().0.min(1));
        part(&other_tag, request, &version)
    });
    for server in [of_size, of_tag] {
        let refusal = refusal(&server.url("tiny.gguf"));
        assert!(
            refusal.contains("changed while it was being read"),
            "{refusal}"
        );
    }
}

#[test]
fn a_connection_that_breaks() {
    // Every answer stops half way: given up after some attempts.
    let file = TinyModel::llama(16).to_bytes();
    let whole = file.clone();
    let broken = Server::start(move |request| {
        let mut bytes = part(&file, request, "\"v1\"");
        bytes.truncate(bytes.len() / 2);
        bytes
    });
    let refusal = refusal(&broken.url("tiny.gguf"));
    assert!(refusal.contains("the connection broke"), "{refusal}");
    assert_eq!(broken.requests(), 3);
    // Only the first one does: not noticed.
    let mut first = true;
    let answers = Mutex::new(move |request: &Request| {
        let mut bytes = part(&whole, request, "\"v1\"");
        if std::mem::take(&mut first) {
            bytes.truncate(bytes.len() / 2);
        }
        bytes
    });
    let shaky = Server::start(move |request| (answers.lock().unwrap())(request));
    read(&shaky.url("tiny.gguf")).unwrap();
}

#[test]
fn a_silent_server() {
    let server = Server::start(|_| Vec::new());
    let impatient = Patience {
        again: Duration::from_millis(1),
        connect: Duration::from_secs(5),
        answer: Duration::from_millis(50),
        whole: Duration::from_secs(5),
    };
    let error = patiently(impatient)
        .resolve(&server.url("tiny.gguf").parse().unwrap())
        .unwrap_err();
    assert!(
        error.to_string().contains("did not answer in time"),
        "{error}"
    );
}

#[test]
fn nobody_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/tiny.gguf", listener.local_addr().unwrap());
    drop(listener);
    assert!(refusal(&url).contains("refused"), "{}", refusal(&url));
}

#[test]
fn a_page_in_place_of_a_model() {
    let server = Server::of(b"<!doctype html><title>Sign in</title>".to_vec());
    assert!(refusal(&server.url("tiny.gguf")).contains("not a GGUF file"));
    let wrong_part = Server::start(|_| {
        let fields = "content-range: bytes 100-199/1000\r\n";
        [head("206 Partial Content", fields, 100), vec![0; 100]].concat()
    });
    assert!(refusal(&wrong_part.url("tiny.gguf")).contains("another part of the file"));
}

#[test]
fn a_config() {
    let server = Server::start(|request| match request.path.as_str() {
        "/config.json" => [head("200 OK", "", 14), b"{\"layers\": 4}\n".to_vec()].concat(),
        _ => [head("200 OK", "", 5 << 20), vec![b' '; 5 << 20]].concat(),
    });
    let read = |path| Client::new(settings()).config(&server.url(path));
    assert_eq!(read("config.json").unwrap(), "{\"layers\": 4}\n");
    let error = read("large.json").unwrap_err().to_string();
    assert!(error.contains("too large"), "{error}");
}

#[test]
fn a_server_that_sends_a_byte_at_a_time() {
    let file = TinyModel::llama(4).to_bytes();
    let server = Server::start(move |request| {
        let (start, _) = request.range.unwrap();
        let one = Request {
            range: Some((start, start + 1)),
            ..request.clone()
        };
        part(&file, &one, "\"v1\"")
    });
    let refusal = refusal(&server.url("tiny.gguf"));
    assert!(refusal.contains("less of the file"), "{refusal}");
    assert_eq!(server.requests(), 1);
}

#[test]
fn a_server_that_drips() {
    let file = TinyModel::llama(4).to_bytes();
    let patience = Patience {
        whole: Duration::from_millis(100),
        ..settings().patience
    };
    let server = Server::dripping(Duration::from_millis(5), move |request| {
        match request.path.as_str() {
            "/config.json" => [head("200 OK", "", 1 << 20), vec![b' '; 1 << 20]].concat(),
            _ => part(&file, request, "\"v1\""),
        }
    });
    let client = patiently(patience);
    let of_model = client.resolve(&server.url("tiny.gguf").parse().unwrap());
    let of_config = client.config(&server.url("config.json"));
    for error in [of_model.unwrap_err(), of_config.unwrap_err()] {
        let text = error.to_string();
        assert!(text.contains("the server is too slow: "), "{text}");
    }
    assert_eq!(server.requests(), 2);
}

#[test]
fn a_file_of_an_absurd_size() {
    let server = Server::start(|request| {
        let end = request.range.unwrap().1;
        let fields = format!("content-range: bytes 0-{}/{}\r\n", end - 1, u64::MAX);
        head("206 Partial Content", &fields, end)
    });
    let refusal = refusal(&server.url("tiny.gguf"));
    assert!(
        refusal.contains("18446744073709551615 bytes, which no model has"),
        "{refusal}"
    );
}

#[test]
fn redirects_to_other_schemes() {
    for target in ["ftp://h/tiny.gguf", "file:///etc/passwd", "data:,x"] {
        let fields = format!("location: {target}\r\n");
        let server = Server::start(move |_| head("302 Found", &fields, 0));
        let refusal = refusal(&server.url("tiny.gguf"));
        let scheme = target.split(':').next().unwrap();
        let said = format!("redirects from http to another scheme, {scheme}: not followed");
        assert!(refusal.contains(&said), "{refusal}");
        assert_eq!(server.requests(), 1);
    }
}

#[test]
fn passwords_are_not_repeated() {
    let server = Server::start(|_| head("404 Not Found", "", 0));
    let url = server.url("tiny.gguf").replace("//", "//me:secret@");
    let refusal = refusal(&url);
    assert!(
        refusal.contains("/tiny.gguf: ") && !refusal.contains("secret"),
        "{refusal}"
    );
    let of_none = read("http://me:secret@/x").unwrap_err().to_string();
    assert!(!of_none.contains("secret"), "{of_none}");
}
