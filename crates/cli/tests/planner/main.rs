//! The planner's commands from outside. They need no llama.cpp, so that these tests run against
//! every build of the program.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod given;
mod plans;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use brigade_gguf::GgmlType;
use brigade_gguf::testing::TinyModel;
use brigade_hub::testing::{Content, TestHub};
use serde_json::Value;

const QUAD: &str = "quad-mac-mini-m4-pro-64gb";

/// What a command did.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brigade"));
    command.args(args).stdin(Stdio::null());
    command
}

fn brigade(args: &[&str]) -> Ended {
    let output = command(args).output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// What a command prints that must succeed.
fn printed(args: &[&str]) -> String {
    let ended = brigade(args);
    assert_eq!(ended.code, Some(0), "{args:?}\n{}", ended.stderr);
    ended.stdout
}

/// The one JSON document that a command prints.
fn document(args: &[&str]) -> Value {
    let text = printed(args);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}\n{text}"))
}

/// What a command says on one line of standard error when it fails.
fn complaint(args: &[&str]) -> String {
    let ended = brigade(args);
    assert_eq!(ended.code, Some(1), "{args:?}\n{}", ended.stderr);
    assert_eq!(ended.stdout, "", "{args:?}");
    assert_eq!(
        ended.stderr.lines().count(),
        1,
        "{args:?}\n{}",
        ended.stderr
    );
    ended.stderr.trim_end().to_owned()
}

/// Keys of an object with the type of each; `?` where it may also be null.
fn has(value: &Value, keys: &[(&str, &str)]) {
    for (key, kind) in keys {
        let found = value
            .get(key)
            .unwrap_or_else(|| panic!("no `{key}` in {value}"));
        let (kind, optional) = match kind.strip_suffix('?') {
            Some(kind) => (kind, true),
            None => (*kind, false),
        };
        let right = match kind {
            "string" => found.is_string(),
            "integer" => found.is_u64(),
            "number" => found.is_number(),
            "list" => found.is_array(),
            "object" => found.is_object(),
            other => panic!("{other}"),
        };
        assert!(right || (optional && found.is_null()), "`{key}` is {found}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_page_of_a_combo() {
    let page = document(&["fit", "--on", QUAD, "--json"]);
    assert_eq!(page["schema"], "brigade.fit/1");
    assert_eq!(page["combo"], QUAD);
    assert_eq!(page["context"], 8192);
    assert_eq!(page["total_bytes"], 256u64 << 30);
    let keys = [
        ("limit_bytes", "integer"),
        ("effective_bytes", "integer"),
        ("effective_ledger", "list"),
        ("models", "list"),
        ("counts", "object"),
    ];
    has(&page, &keys);
    let bytes = |value: &Value| value.as_u64().unwrap();
    let ledger = page["effective_ledger"].as_array().unwrap();
    let taken: u64 = ledger.iter().map(|item| bytes(&item["bytes"])).sum();
    assert_eq!(
        bytes(&page["limit_bytes"]) - taken,
        bytes(&page["effective_bytes"])
    );
    let models = page["models"].as_array().unwrap();
    for model in models {
        let keys = [
            ("id", "string"),
            ("quant", "string"),
            ("weights_bytes", "integer"),
            ("tier", "string"),
            ("utilization", "number?"),
            ("binding_node", "string?"),
            ("max_context", "integer?"),
            ("decode_tok_s", "object?"),
            ("reasons", "list"),
        ];
        has(model, &keys);
        if !model["decode_tok_s"].is_null() {
            let keys = [
                ("low", "number"),
                ("mid", "number"),
                ("high", "number"),
                ("evidence", "string"),
            ];
            has(&model["decode_tok_s"], &keys);
        }
    }
    for tier in ["comfortable", "borderline", "not-practical", "unknown"] {
        let count = models.iter().filter(|model| model["tier"] == tier).count();
        assert_eq!(bytes(&page["counts"][tier]), count as u64, "{tier}");
    }
    assert!(models.len() >= 38, "{}", models.len());
}

#[test]
fn a_model_on_a_combo() {
    let page = document(&["fit", "llama-3.3-70b", "--on", QUAD, "--json"]);
    assert_eq!(page["schema"], "brigade.fit/1");
    let model = &page["models"][0];
    has(
        model,
        &[
            ("ledger", "list"),
            ("alternatives", "list"),
            ("changes", "list"),
        ],
    );
    assert_eq!(model["tier"], "comfortable");
    for node in model["ledger"].as_array().unwrap() {
        has(
            node,
            &[
                ("node", "string"),
                ("pools", "list"),
                ("disk_bytes", "integer"),
            ],
        );
    }
}

/// What is asked for counts, and a context that the model does not have is cut, and said.
#[test]
fn what_is_asked_for() {
    let asked = [
        "--quant",
        "q8_0",
        "--kv-type",
        "q8_0",
        "--streams",
        "4",
        "--context",
        "1000000",
    ];
    let fit = ["fit", "llama-3.3-70b", "--on", QUAD, "--json"];
    let args = [&fit[..], &asked].concat();
    let ended = brigade(&args);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("a context of 131072 tokens: 1000000 are cut"),
        "{}",
        ended.stderr
    );
    let page: Value = serde_json::from_str(&ended.stdout).unwrap();
    let model = &page["models"][0];
    assert_eq!(model["quant"], "Q8_0");
    assert_eq!(model["load"]["context"], 131_072);
    assert_eq!(model["load"]["sequences"], 4);
    assert_eq!(model["load"]["kv_type"], "q8_0");
    for nothing in ["--context", "--streams"] {
        let refused = brigade(&["fit", "llama-3.3-70b", "--on", QUAD, nothing, "0"]);
        assert_eq!(refused.code, Some(2));
        assert!(
            refused.stderr.contains("0 is not in 1.."),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn pages_for_people() {
    let page = printed(&["fit", "--on", QUAD]);
    assert!(page.starts_with("What runs on "), "{page}");
    // Not a terminal: no colour.
    assert!(!page.contains('\u{1b}'));
    assert!(page.ends_with('\n') && !page.ends_with("\n\n"));
    let page = printed(&["fit", "llama-3.3-70b", "--on", "2x rtx-3090"]);
    assert!(
        page.contains("rtx-3090") || page.contains("RTX 3090"),
        "{page}"
    );
    // A default that Brigade does not run is named, with what to add.
    for words in [
        &["fit", "llama-3.3-70b", "--on", QUAD][..],
        &["plan", "llama-3.3-70b", "--on", QUAD],
        &["fit", "--on", QUAD],
    ] {
        let other = "Brigade runs GGUF: add --format gguf.";
        let page = printed(words);
        let page: Vec<&str> = page.split_whitespace().collect();
        assert!(page.join(" ").contains(other), "{words:?}");
        let asked = printed(&[words, &["--quant", "Q4_K_M"]].concat());
        assert!(!asked.contains("Brigade runs GGUF"), "{asked}");
    }
    let page = printed(&["fit", "qwen3-0.6b", "--everywhere"]);
    assert!(page.contains("Raspberry Pi"), "{page}");
}

/// What a page says to type works as it stands.
#[test]
fn commands_of_a_page() {
    for on in [&["--on", QUAD][..], &["--on", "2x rtx-3090"], &[]] {
        let page = printed(&[&["fit"], on].concat());
        let commands: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("  brigade "))
            .filter(|line| !line.contains("FILE.csv"))
            .collect();
        assert!(commands.len() >= 4, "{page}");
        for line in commands {
            // One argument may be in quotes.
            let args: Vec<&str> = match line.split_once('\'') {
                Some((before, quoted)) => {
                    let (quoted, after) = quoted.split_once('\'').unwrap();
                    let before = before.split_whitespace().chain([quoted]);
                    before.chain(after.split_whitespace()).collect()
                }
                None => line.split_whitespace().collect(),
            };
            printed(&args);
        }
    }
}

#[test]
fn this_machine() {
    let page = document(&["fit", "--json"]);
    assert_eq!(page["combo"], "this-machine");
    assert!(page["limit_bytes"].as_u64().unwrap() > 0);
    assert!(page["limit_bytes"].as_u64() <= page["total_bytes"].as_u64());
}

/// `brigade fit | head -1`
#[test]
fn a_reader_that_has_seen_enough() {
    for args in [&["fit", "--on", QUAD][..], &["fit", "--on", QUAD, "--json"]] {
        let mut child = command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Closed before anything is written: whatever is written meets a broken pipe.
        drop(child.stdout.take());
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(child.wait().unwrap().success(), "{said}");
        assert_eq!(said, "");
    }
}

/// What `brigade` prints on a terminal of 80 columns, with this shell's variables; `None` where
/// there is no util-linux.
#[cfg(target_os = "linux")]
fn on_a_terminal(rows: u32, variables: &str, args: &str) -> Option<String> {
    let brigade = env!("CARGO_BIN_EXE_brigade");
    let line = format!("stty cols 80 rows {rows}; export NO_COLOR=1 {variables}; {brigade} {args}");
    let mut script = Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::null());
    script
        .env_remove("BRIGADE_PAGER")
        .env_remove("PAGER")
        .env_remove("LESS");
    let output = script.output().ok()?;
    let text = String::from_utf8(output.stdout).unwrap().replace('\r', "");
    assert!(output.status.success(), "{variables} {args}: {text}");
    Some(text)
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_has_its_own_width_and_a_pager() {
    let fit = format!("fit llama-3.3-70b --on {QUAD}");
    let paged = "BRIGADE_PAGER='sed s/^/P:/' PAGER=false";
    let Some(page) = on_a_terminal(20, paged, &fit) else {
        return;
    };
    assert!(page.lines().all(|line| line.starts_with("P:")), "{page}");
    let lines = || page.lines().filter(|line| !line.contains("https://"));
    let widest = lines().map(|line| line.chars().count() - 2).max();
    assert!(
        widest.is_some_and(|widest| (73..=80).contains(&widest)),
        "{page}"
    );

    let on = |rows, variables: &str, args: &str| on_a_terminal(rows, variables, args).unwrap();
    let plain = page.replace("P:", "");
    for (variables, rows) in [
        ("BRIGADE_PAGER= PAGER='sed s/^/P:/'", 20),
        ("PAGER=cat", 20),
        ("PAGER=/nowhere/a-pager", 20),
        ("PAGER='sed s/^/P:/'", 2000),
    ] {
        assert_eq!(on(rows, variables, &fit), plain, "{variables}");
    }
    assert_eq!(on(20, "PAGER='sed s/^/P:/'", &fit), page);
    assert_eq!(on(20, "PAGER='head -n 1'", &fit).lines().count(), 1);
    assert_eq!(
        on(20, "PAGER='sed -n 1p | sed s/^/P:/'", &fit)
            .lines()
            .count(),
        1
    );
    let json = on(20, paged, &format!("{fit} --json"));
    assert!(json.starts_with('{'), "{json}");
}

/// A page in a file: whole, and with nothing to load from elsewhere.
#[test]
fn a_page_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    let ended = brigade(&["fit", "--on", QUAD, "--html", text(&path)]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
    assert_eq!(ended.stderr, format!("the page is at {}\n", path.display()));
    let page = fs::read_to_string(&path).unwrap();
    assert!(page.starts_with("<!doctype html>"), "{page}");
    loads_nothing(&page);
    let said = complaint(&[
        "fit",
        "--on",
        QUAD,
        "--html",
        text(&folder.path().join("no/page.html")),
    ]);
    assert!(said.contains("cannot write"), "{said}");
}

fn loads_nothing(page: &str) {
    for sign in [" src=", "<link", "<script src", "@import", "url("] {
        assert!(!page.contains(sign), "{sign}");
    }
}

#[test]
fn a_site() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    let ended = brigade(&["site", text(&site)]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), ""),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("index.html"), "{}", ended.stderr);
    let mut pages = 0;
    let mut folders = vec![site];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "html") {
                pages += 1;
                links_lead_somewhere(&path);
            }
        }
    }
    assert!(pages > 38 + 60 + 12, "{pages}");
}

/// Every relative link of a page is a file of the site.
fn links_lead_somewhere(path: &Path) {
    let page = fs::read_to_string(path).unwrap();
    for link in page.split("href=\"").skip(1) {
        let target = link.split(['"', '#']).next().unwrap();
        if !target.is_empty() && !target.contains(':') {
            let file = path.parent().unwrap().join(target);
            assert!(file.is_file(), "{} of {}", file.display(), path.display());
        }
    }
}
