//! Keys of the API.

use std::io::{Read, Write};
use std::net::TcpStream;

use brigade_gguf::testing::TinyModel;

use crate::support::{Lab, Scratch, Signal, text};

/// The status of `GET /v1/models` with this header.
fn status(api: &str, header: &str) -> String {
    let mut stream = TcpStream::connect(api).unwrap();
    write!(
        stream,
        "GET /v1/models HTTP/1.1\r\nhost: {api}\r\n{header}connection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn a_key_opens_the_api_and_its_file_does_not_tell_it() {
    let scratch = Scratch::new();
    let file = scratch.path("keys");
    let mut keys = Vec::new();
    for name in ["ann", "ben"] {
        let made = scratch.run(&["key", name, "--file", text(&file)]);
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        keys.push(made.stdout.trim_end().to_owned());
    }
    assert_ne!(keys[0], keys[1]);
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(
        kept.starts_with("ann ") && kept.contains("\nben "),
        "{kept}"
    );
    assert!(!keys.iter().any(|key| kept.contains(key)), "{kept}");

    let model = scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let arguments = ["--nodes", "1", "--api-key-file", text(&file)];
    let lab = Lab::start(scratch, &model, &arguments);
    assert_eq!(status(lab.api(), ""), "401");
    assert_eq!(
        status(lab.api(), "authorization: Bearer brigade-00\r\n"),
        "401"
    );
    for key in &keys {
        let header = format!("authorization: Bearer {key}\r\n");
        assert_eq!(status(lab.api(), &header), "200");
    }
    lab.end(Signal::TERM);
}
