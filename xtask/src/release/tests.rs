use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::thread;

use super::*;

const REPOSITORY: &str = "https://example.com/owner/name/";

/// Archives for every platform of the formula, whose `brigade` prints `text`.
fn release(folder: &Path, text: &str) {
    for (system, machine) in [
        ("linux", "x86_64"),
        ("linux", "aarch64"),
        ("macos", "aarch64"),
    ] {
        let name = archive_name(system, machine, Flavor::Plain);
        let staging = folder.join(&name);
        fs::create_dir_all(&staging).unwrap();
        let program = staging.join("brigade");
        fs::write(&program, format!("#!/bin/sh\necho {text}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        archive(folder, &name, folder).unwrap();
        fs::remove_dir_all(&staging).unwrap();
    }
    checksums(folder, REPOSITORY).unwrap();
}

/// Serves a folder's files over HTTP until the test's process ends; gives the address.
fn serve(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let folder = folder.to_owned();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            // All of the head, or closing the socket would break the answer off.
            let _ = lines.find(String::is_empty);
            let path = request.split(' ').nth(1).unwrap_or_default();
            let answer = match fs::read(folder.join(path.trim_start_matches('/'))) {
                Ok(body) => {
                    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    [head.into_bytes(), body].concat()
                }
                Err(_) => b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            };
            let _ = stream.write_all(&answer);
        }
    });
    format!("http://{address}")
}

fn install(folder: &Path, home: &Path, url: &str, flavor: &str) -> Output {
    Command::new("sh")
        .arg(folder.join("install.sh"))
        .env("HOME", home)
        .env("BRIGADE_URL", url)
        .env("BRIGADE_FLAVOR", flavor)
        .env_remove("BRIGADE_PREFIX")
        .output()
        .unwrap()
}

#[test]
fn the_installer_checks_installs_and_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, home) = (dir.path().join("dist"), dir.path().join("home of ann"));
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir_all(&home).unwrap();
    let url = serve(&folder);
    let installed = || {
        let program = Command::new(home.join(".local/bin/brigade")).output();
        String::from_utf8(program.unwrap().stdout).unwrap()
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    for text in ["one", "two"] {
        release(&folder, text);
        let output = install(&folder, &home, &url, "");
        assert!(output.status.success(), "{}", said(&output));
        assert!(
            said(&output).contains("add it to your PATH"),
            "{}",
            said(&output)
        );
        assert_eq!(installed(), format!("{text}\n"));
    }
    let missing = install(&folder, &home, &url, "cuda");
    assert!(!missing.status.success());
    assert!(
        said(&missing).contains("the release has no"),
        "{}",
        said(&missing)
    );

    // Whatever came over the wire: what does not match is not unpacked.
    for entry in fs::read_dir(&folder).unwrap().flatten() {
        if entry.path().to_string_lossy().ends_with(".tar.gz") {
            fs::write(entry.path(), "something else").unwrap();
        }
    }
    let damaged = install(&folder, &home, &url, "");
    assert!(!damaged.status.success());
    assert!(said(&damaged).contains("is damaged"), "{}", said(&damaged));
    assert_eq!(installed(), "two\n");
    let library = fs::read_dir(home.join(".local/lib")).unwrap();
    assert_eq!(library.count(), 1, "nothing is left behind");
}

#[test]
fn templates_are_filled() {
    let dir = tempfile::tempdir().unwrap();
    release(dir.path(), "x");
    let formula = fs::read_to_string(dir.path().join("brigade.rb")).unwrap();
    let script = fs::read_to_string(dir.path().join("install.sh")).unwrap();
    let sums = fs::read_to_string(dir.path().join("SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().count(), 3);
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        assert!(formula.contains(&format!("sha256 \"{sum}\"")), "{formula}");
        let url = format!("https://example.com/owner/name/releases/download/v{VERSION}/{name}");
        assert!(formula.contains(&format!("url \"{url}\"")), "{formula}");
    }
    for text in [&formula, &script] {
        assert!(
            !text.contains("@VERSION@") && !text.contains("@DOWNLOADS@"),
            "{text}"
        );
    }
    assert!(filled("@SHA256 linux-x86_64@", "", REPOSITORY).is_err());
    assert!(filled("", &sums, "owner/name").is_err());
}
