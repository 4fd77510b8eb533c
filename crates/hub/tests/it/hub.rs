//! `hf:` against a hub.

use std::sync::Arc;

use brigade_gguf::testing::TinyModel;
use brigade_hub::testing::{COMMIT, Content, TestHub};
use brigade_hub::{Client, Location, RangeReader, Resolved, Settings};

use super::settings;

fn client(hub: &TestHub, token: Option<&str>) -> Client {
    Client::new(Settings {
        endpoint: format!("{}/", hub.endpoint()),
        token: token.map(str::to_owned),
        ..settings()
    })
}

fn resolve(hub: &TestHub, name: &str) -> Result<Resolved, String> {
    let resolved = client(hub, None).resolve(&name.parse().unwrap());
    resolved.map_err(|error| error.to_string())
}

fn bytes(bytes: Vec<u8>) -> Content {
    Content::Bytes(Arc::new(bytes))
}

#[test]
fn a_model_of_a_repository_in_parts() {
    let parts = TinyModel::llama(8).to_parts(2);
    let hub = TestHub::start(
        "own-er/re.po",
        &[
            ("README.md", bytes(vec![b'#'; 100])),
            ("big/m-Q8_0-00001-of-00002.gguf", bytes(parts[0].clone())),
            ("big/m-Q8_0-00002-of-00002.gguf", bytes(parts[1].clone())),
            ("m-F32.gguf", bytes(TinyModel::llama(4).to_bytes())),
        ],
    );
    let resolved = resolve(&hub, "hf:own-er/re.po:q8_0@refs/pr/1").unwrap();
    assert_eq!(resolved.name, "m-Q8_0");
    assert_eq!(resolved.model.parts().len(), 2);
    assert_eq!(
        resolved.files[1].location,
        Location::Hub {
            repo: "own-er/re.po".to_owned(),
            commit: COMMIT.to_owned(),
            path: "big/m-Q8_0-00002-of-00002.gguf".to_owned(),
        }
    );
    for (header, part) in resolved.headers.iter().zip(&parts) {
        assert_eq!(header[..], part[..header.len()]);
    }
    let asked = hub.asked();
    assert_eq!(
        asked[0].path,
        "/api/models/own-er/re.po/revision/refs%2Fpr%2F1?blobs=true"
    );
    assert_eq!(resolve(&hub, "hf:own-er/re.po:F32").unwrap().name, "m-F32");
    let error = resolve(&hub, "hf:own-er/re.po").unwrap_err();
    assert!(error.contains("may mean any of Q8_0 ("), "{error}");
    let error = resolve(&hub, "hf:own-er/re.po:Q2_K").unwrap_err();
    assert!(error.contains("has no Q2_K; it has Q8_0 ("), "{error}");
}

#[test]
fn a_token_goes_to_the_hub_alone() {
    let hub = TestHub::start("o/r", &[("m.gguf", bytes(TinyModel::llama(4).to_bytes()))]);
    hub.set_token("secret");
    client(&hub, Some("secret"))
        .resolve(&"hf:o/r".parse().unwrap())
        .unwrap();
    let all = |one: &brigade_hub::testing::Request| one.authorization.clone();
    assert!(
        hub.asked()
            .iter()
            .map(all)
            .all(|who| who.as_deref() == Some("Bearer secret"))
    );
    let of_files = hub.asked_for_files();
    assert!(!of_files.is_empty() && of_files.iter().map(all).all(|who| who.is_none()));
    let without = resolve(&hub, "hf:o/r").unwrap_err();
    assert!(
        without.contains("401 Unauthorized") && without.contains("set HF_TOKEN"),
        "{without}"
    );
    let wrong = client(&hub, Some("guess")).resolve(&"hf:o/r".parse().unwrap());
    let wrong = wrong.unwrap_err().to_string();
    assert!(
        wrong.contains("the account of HF_TOKEN may not read it"),
        "{wrong}"
    );
    assert!(!wrong.contains("guess"), "{wrong}");
}

#[test]
fn repositories_that_are_not_there_or_hold_nothing() {
    let hub = TestHub::start("o/r", &[("m.safetensors", bytes(vec![0; 10]))]);
    let error = resolve(&hub, "hf:o/r").unwrap_err();
    assert!(error.contains("hf:o/r has no GGUF file"), "{error}");
    let error = resolve(&hub, "hf:o/other").unwrap_err();
    assert!(
        error.contains("404 Not Found: there is no such repository"),
        "{error}"
    );
    hub.set_down(true);
    let error = resolve(&hub, "hf:o/r").unwrap_err();
    assert!(
        error.contains("503 Service Unavailable: try again later"),
        "{error}"
    );
    assert_eq!(hub.asked().len(), 2 + 3);
}

/// What a reader gets of a range.
fn range(reader: &mut RangeReader, start: u64, end: u64) -> Result<Vec<u8>, String> {
    let mut got = Vec::new();
    let read = reader.read(start, end, &mut |piece| {
        got.extend_from_slice(piece);
        Ok(())
    });
    read.map(|()| got).map_err(|error| error.to_string())
}

#[test]
fn an_expired_address_is_asked_for_anew_and_a_changed_file_refused() {
    let file = TinyModel::llama(4).to_bytes();
    let hub = TestHub::start("o/r", &[("m.gguf", bytes(file.clone()))]);
    let client = client(&hub, None);
    let resolved = client.resolve(&"hf:o/r".parse().unwrap()).unwrap();
    hub.set_signature_uses(2);
    let mut reader = RangeReader::of(&client, &resolved.files[0]);
    for start in [0, 10, 2000, 30, 99] {
        let got = range(&mut reader, start, start + 50).unwrap();
        assert_eq!(got, file[start as usize..][..50]);
    }
    // The listing, once for the header, three times for five ranges.
    assert_eq!(hub.asked().len(), 1 + 1 + 3);
    hub.set_version("\"v2\"");
    let error = range(&mut reader, 0, 10).unwrap_err();
    assert!(error.contains("the file changed"), "{error}");
    // Who comes later, with what was known, sees it as well.
    let mut late = RangeReader::of(&client, &resolved.files[0]);
    let error = range(&mut late, 0, 10).unwrap_err();
    assert!(error.contains("the file changed"), "{error}");
}

#[test]
fn a_model_of_400_gb_is_known_for_few_bytes() {
    let content = Content::huge();
    let size = content.size();
    assert!(size > 400_000_000_000, "{size}");
    let hub = TestHub::start("o/huge", &[("huge-Q8_0.gguf", content)]);
    let resolved = resolve(&hub, "hf:o/huge").unwrap();
    assert_eq!(resolved.model.file_bytes(), size);
    assert_eq!(resolved.model.header().block_count().unwrap(), 126);
    assert_eq!(hub.served_bytes(), resolved.received_bytes);
    assert!(hub.served_bytes() < 32_000_000, "{}", hub.served_bytes());
}
