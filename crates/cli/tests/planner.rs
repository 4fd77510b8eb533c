//! The planner's commands from outside. They need no llama.cpp, so that these tests run against
//! every build of the program.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

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

#[test]
fn names_that_nobody_has() {
    let said = complaint(&["fit", "--on", "quad-mac-mini-m4-pro-64g"]);
    assert!(
        said.contains("is called 'quad-mac-mini-m4-pro-64g'; did you mean"),
        "{said}"
    );
    assert!(said.contains(QUAD), "{said}");
    let said = complaint(&["fit", "llama-3.3-70", "--on", QUAD]);
    assert!(
        said.contains("no model is called 'llama-3.3-70'; did you mean llama-3.3-70b"),
        "{said}"
    );
    let said = complaint(&[
        "plan",
        "llama-3.3-70b",
        "--on",
        "4x mac-mini-m4-pro-64gb, link=tb55",
    ]);
    assert!(said.contains("'tb55'") && said.contains("tb5"), "{said}");
    let said = complaint(&["fit", "llama-3.3-70b", "--on", QUAD, "--quant", "Q4_K_N"]);
    assert!(
        said.contains("no quantization is called 'Q4_K_N'"),
        "{said}"
    );
    let said = complaint(&["fit", "missing.gguf", "--on", QUAD]);
    assert!(
        said.starts_with("brigade: missing.gguf: cannot read"),
        "{said}"
    );
    let alone = brigade(&["fit", "--everywhere"]);
    assert_eq!(alone.code, Some(2));
}

#[test]
fn models_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.Q8_0.gguf");
    TinyModel::llama(4)
        .weights(GgmlType::Q8_0)
        .write(&path)
        .unwrap();
    let page = document(&["fit", text(&path), "--on", QUAD, "--json"]);
    let model = &page["models"][0];
    assert_eq!(model["id"], "tiny.Q8_0");
    let source = brigade_gguf::Source::open(&path).unwrap();
    assert_eq!(model["weights_bytes"], source.model().tensor_bytes());

    let config = folder.path().join("config.json");
    let facts = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192}"#;
    fs::write(&config, facts).unwrap();
    let page = document(&[
        "fit",
        text(&config),
        "--on",
        QUAD,
        "--json",
        "--quant",
        "Q4_K_M",
    ]);
    let weights = page["models"][0]["weights_bytes"].as_u64().unwrap();
    assert!(
        (4_800_000_000..5_100_000_000).contains(&weights),
        "{weights}"
    );
}

#[test]
fn a_plan() {
    let plan = ["plan", "llama-3.3-70b", "--on", QUAD];
    let page = document(&[&plan[..], &["--json"]].concat());
    assert_eq!(page["schema"], "brigade.plan/1");
    has(
        &page,
        &[
            ("stages", "list"),
            ("plan", "object"),
            ("verdict", "object"),
        ],
    );
    has(
        &page["verdict"],
        &[("ledger", "list"), ("alternatives", "list")],
    );
    let spread = [&plan[..], &["--objective", "largest-context", "--json"]].concat();
    assert!(document(&spread)["stages"].as_array().unwrap().len() > 1);
    let commands = printed(&[&plan[..], &["--emit", "llama-server"]].concat());
    assert!(commands.contains("llama-server --model "), "{commands}");
    let said = complaint(&[&plan[..], &["--emit", "vllm"]].concat());
    assert!(
        said.starts_with("brigade: vLLM has no backend for Apple M4 Pro"),
        "{said}"
    );
}

#[test]
fn a_plan_for_brigade() {
    let emit = |model: &str, on: &str, more: &[&str]| {
        let plan = [
            "plan",
            model,
            "--on",
            on,
            "--emit",
            "brigade",
            "--context",
            "16k",
        ];
        printed(&[&plan[..], more].concat())
    };
    let commands = emit("qwen3-235b-a22b", QUAD, &["--streams", "2"]);
    assert!(
        commands.starts_with("# Brigade reads GGUF, so this is the plan at Q"),
        "{commands}"
    );
    for line in ["brigade up --name node-1\n", "brigade invite\n"] {
        assert!(commands.contains(line), "{commands}");
    }
    assert!(
        commands.contains("brigade up --name node-2 --join <token>\n"),
        "{commands}"
    );
    assert!(
        commands.ends_with(
            " --on node-1,node-2,node-3,node-4 --ctx 16384 --streams 2 --engine llama-rpc\n"
        ),
        "{commands}"
    );
    let commands = emit("llama-3.3-70b", "mac-studio-m3-ultra-256gb", &[]);
    assert!(
        !commands.contains("--on") && !commands.contains("--engine"),
        "{commands}"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    TinyModel::llama(4).write(&path).unwrap();
    let commands = emit(text(&path), "mac-mini-m4-pro-64gb", &[]);
    let load = format!("brigade load {} --ctx ", path.display());
    assert!(commands.contains(&load), "{commands}");
    let plan = ["plan", "llama-3.3-70b", "--on", QUAD, "--emit", "brigade"];
    let said = complaint(&[&plan[..], &["--quant", "mlx-4bit"]].concat());
    assert!(
        said.contains("mlx-4bit is MLX; choose --quant Q4_K_M"),
        "{said}"
    );
    let said = complaint(&[&plan[..], &["--kv-type", "q8_0"]].concat());
    assert!(said.contains("keys and values in 16 bits"), "{said}");
}

/// What vLLM would read and the catalog does not have is not held against the machines.
#[test]
fn checkpoints_that_the_catalog_has_not() {
    let plan = [
        "plan",
        "llama-3.3-70b",
        "--on",
        "4x rtx-3090",
        "--emit",
        "vllm",
    ];
    let said = complaint(&plan);
    for part in [
        " at bf16: ",
        "The catalog has it for vLLM at bf16, FP8",
        "AWQ and GPTQ checkpoints",
        "--quant FP8",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let gpt = [
        "plan",
        "gpt-oss-120b",
        "--on",
        "8x h100-sxm",
        "--emit",
        "vllm",
    ];
    let ended = brigade(&gpt);
    let told = ended
        .stderr
        .contains("people serve with vLLM. The catalog has it for vLLM at ");
    assert!(told || ended.code == Some(0), "{}", ended.stderr);
    let commands = printed(&[&plan[..], &["--quant", "FP8"]].concat());
    assert!(
        commands.contains("<a checkpoint of meta-llama/Llama-3.3-70B-Instruct at FP8>"),
        "{commands}"
    );
}

#[test]
fn a_name_of_another_model() {
    let said = |name: &str| brigade(&["fit", name, "--on", QUAD]).stderr;
    assert_eq!(
        said("deepseek-r1-distill-llama-70b"),
        "'deepseek-r1-distill-llama-70b' has the layers and widths of Llama 3.3 70B, whose facts are used\n"
    );
    assert_eq!(said("llama3.3:70b"), "");
    let emit = |engine: &str| {
        let on = "8x h100-sxm";
        printed(&[
            "plan",
            "deepseek-r1-distill-llama-70b",
            "--on",
            on,
            "--emit",
            engine,
        ])
    };
    assert!(
        emit("vllm").contains("vllm serve <model> "),
        "not Llama 3.3"
    );
    assert!(
        emit("brigade").contains("GGUF files of deepseek-r1-distill-llama-70b;"),
        "not Llama 3.3"
    );
}

/// An engine that reads another format than the plan that is shown says so, or why it cannot.
#[test]
fn another_engine_another_format() {
    let plan = ["plan", "llama-3.3-70b", "--on", "mac-studio-m3-ultra-256gb"];
    let page = document(&[&plan[..], &["--json", "--quant", "mlx-4bit"]].concat());
    assert_eq!(page["verdict"]["quant"], "mlx-4bit");
    let own = document(&[&plan[..], &["--json"]].concat());
    let shown = own["verdict"]["quant"].as_str().unwrap();
    let commands = printed(&[&plan[..], &["--emit", "llama-server"]].concat());
    let first = commands.lines().next().unwrap();
    let told = first.starts_with("# llama.cpp reads GGUF, so this is the plan at Q")
        && first.contains("--quant Q");
    assert_eq!(told, !shown.starts_with('Q'), "{shown}: {first}");
    let emit = ["--emit", "llama-server", "--quant", "mlx-4bit"];
    let said = complaint(&[&plan[..], &emit].concat());
    assert!(
        said.contains("llama.cpp reads GGUF, and mlx-4bit is MLX; choose --quant "),
        "{said}"
    );
    let said = complaint(&["plan", "llama-3.3-70b", "--on", "rtx-3090", "--emit", "exo"]);
    assert!(said.contains("exo has no backend for NVIDIA"), "{said}");
}

#[test]
fn measurements_without_columns_or_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.csv");
    fs::write(&path, "id,model,machine\n").unwrap();
    let said = complaint(&["backtest", text(&path)]);
    assert!(
        said.contains("rows.csv:1: header: lacks the columns params_b, "),
        "{said}"
    );
    let all = include_str!("../../../catalog/measurements.csv");
    fs::write(&path, all.lines().next().unwrap()).unwrap();
    let said = complaint(&["backtest", text(&path)]);
    assert!(
        said.ends_with("rows.csv has no rows, only a header"),
        "{said}"
    );
}

#[test]
fn measurements_of_one_rate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.csv");
    let all = include_str!("../../../catalog/measurements.csv");
    let header: Vec<&str> = all.lines().next().unwrap().split(',').collect();
    let at = |name: &str| header.iter().position(|own| *own == name).unwrap();
    let row = all.lines().find(|row| row.starts_with("m0029,")).unwrap();
    let mut row: Vec<&str> = row.split(',').collect();
    row[at("pp_tok_s")] = "";
    fs::write(&path, format!("{}\n{}\n", header.join(","), row.join(","))).unwrap();
    let page = printed(&["backtest", text(&path)]);
    assert!(
        page.contains(" over 1 row; ") && !page.contains("prefill"),
        "{page}"
    );
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

/// What the cluster itself was measured to cost takes the place of what is assumed.
#[test]
fn a_measured_cost_of_the_cluster() {
    let fit = ["fit", "--on", QUAD, "--json"];
    let cost = |page: &Value| {
        let ledger = page["effective_ledger"].as_array().unwrap();
        ledger.last().unwrap()["item"].as_str().unwrap().to_owned()
    };
    let assumed = document(&fit);
    let measured = document(&[&fit[..], &["--cluster-cost", "4"]].concat());
    assert_eq!(cost(&assumed), "unmeasured cluster cost");
    assert_eq!(cost(&measured), "measured cluster cost");
    let effective = |page: &Value| page["effective_bytes"].as_u64().unwrap();
    assert!(effective(&measured) > effective(&assumed));
    let same = document(&[&fit[..], &["--cluster-cost", "12.5%"]].concat());
    assert_eq!(effective(&same), effective(&assumed));
    let ended = brigade(&["plan", "llama-3.3-70b", "--cluster-cost", "51"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("0 to 50"), "{}", ended.stderr);
}

#[test]
fn a_catalog_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| fs::write(folder.path().join("links.toml"), text).unwrap();
    let catalog = ["--catalog", text(folder.path())];
    write("[[link]]\nid = \"tb5\"\nname = \"none\"\nlatency_ms = -1\n");
    let said = complaint(&[&catalog[..], &["fit", "--on", QUAD]].concat());
    assert!(said.starts_with("brigade: links.toml:"), "{said}");
    let missing = folder.path().join("nowhere");
    let said = complaint(&["fit", "--catalog", text(&missing)]);
    assert!(said.contains("cannot read the catalog in"), "{said}");
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

#[test]
fn a_plan_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.html");
    let plan = ["plan", "llama-3.3-70b", "--on", QUAD];
    let ended = brigade(&[&plan[..], &["--html", text(&path)]].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
    let page = fs::read_to_string(&path).unwrap();
    assert!(
        page.starts_with("<!doctype html>") && page.contains("Stages"),
        "{page}"
    );
    loads_nothing(&page);
    for both in ["--json", "--html=a.html"] {
        let ended = brigade(&[&plan[..], &["--emit", "llama-server", both]].concat());
        assert_eq!(ended.code, Some(2), "{both}: {}", ended.stderr);
    }
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

#[test]
fn names_of_the_catalog() {
    let machines = printed(&["names", "machines"]);
    let line = "mac-mini-m4-pro-64gb";
    assert!(
        machines.lines().any(|own| own.starts_with(line)),
        "{machines}"
    );
    let all = document(&["names", "--json"]);
    assert_eq!(all["schema"], "brigade.names/1");
    for kind in ["machines", "gpus", "cpus", "links", "models", "combos"] {
        let names = all[kind].as_array().unwrap();
        assert!(!names.is_empty(), "{kind}");
        has(&names[0], &[("id", "string"), ("name", "string")]);
    }
    let said = complaint(&["fit", "--on", "a-cray"]);
    assert!(said.contains("`brigade names machines`"), "{said}");
    let help = printed(&["fit", "--help"]);
    for part in [
        "ram=64gb",
        "cpu=",
        "wired=",
        "link=",
        "--quant Q8_0",
        "--catalog",
    ] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn a_catalog_without_files() {
    let folder = tempfile::tempdir().unwrap();
    let said = complaint(&["fit", "--catalog", text(folder.path())]);
    assert!(said.contains("hardware.toml, links.toml"), "{said}");
}

#[test]
fn spellings_and_hints() {
    let asked = ["--context", "32k", "--kv-type", "Q8_0", "--json"];
    let page = document(&[&["fit", "llama-3.3-70b", "--on", QUAD][..], &asked].concat());
    assert_eq!(page["models"][0]["load"]["context"], 32_768);
    assert_eq!(page["models"][0]["load"]["kv_type"], "q8_0");
    let ended = brigade(&["fit", "llama-3.3-70b", "--on", "rtx-4090 + rtx-3090"]);
    assert!(ended.stderr.contains("`, link=10gbe`"), "{}", ended.stderr);
    let said = complaint(&["fit", "llama-3.3-70b", "--on", QUAD, "--quant", "q4"]);
    assert!(said.contains("did you mean Q4_K_M"), "{said}");
}

/// Strangers' words may not reach a terminal as they are.
#[test]
fn what_a_terminal_acts_on_is_escaped() {
    let name = "\u{1b}[31mred\u{202e}\u{9b}";
    let shown = "\\u{1b}[31mred\\u{202e}\\u{9b}";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.csv");
    let header = include_str!("../../../catalog/measurements.csv");
    let header = header.lines().next().unwrap();
    let row = format!("z1,M,7,7,Q4,4,box,1,24,546,{name},,,x,,,,tg128,12,community,here,");
    fs::write(&file, format!("{header}\n{row}\n")).unwrap();
    for args in [
        &["fit", name][..],
        &["fit", "--on", name],
        &["backtest", text(&file)],
        &["plan", &format!("{name}.gguf")],
    ] {
        let said = complaint(args);
        assert!(said.contains(shown), "{said}");
        assert!(!said.contains(char::is_control), "{said}");
    }
    let ended = brigade(&["fit", "--kv-type", name]);
    assert_eq!(ended.code, Some(2));
    let rest = "red\\u{202e}\\u{9b}";
    assert!(ended.stderr.contains(rest), "{}", ended.stderr);
    assert!(!ended.stderr.contains('\u{1b}'), "{}", ended.stderr);
    let long = complaint(&["fit", &"x".repeat(100_000)]);
    assert!(long.chars().count() < 1000, "{}", long.len());
}

#[test]
fn rows_that_cannot_be_true() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("measurements.csv");
    let header = include_str!("../../../catalog/measurements.csv");
    let header = header.lines().next().unwrap();
    let row = "z1,M,7,7,Q4,4,box,1,24,546,1,,,x,,,,tg128,1e300,community,here,";
    fs::write(&file, format!("{header}\n{row}\n")).unwrap();
    let said = complaint(&["backtest", text(&file)]);
    assert!(said.contains("measurements.csv:2: tg_tok_s: "), "{said}");
    let said = complaint(&["--catalog", text(folder.path()), "fit", "--on", QUAD]);
    assert!(said.contains("measurements.csv:2: tg_tok_s: "), "{said}");
}

#[cfg(unix)]
#[test]
fn pipes_and_folders_in_place_of_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["config.json", "rows.csv", "m.gguf", "links.toml", "pipe"] {
        let made = Command::new("mkfifo").arg(at(name)).status().unwrap();
        assert!(made.success(), "{name}");
    }
    for (args, part) in [
        (&["fit", text(&at("config.json"))][..], "it is a pipe"),
        (&["backtest", text(&at("rows.csv"))], "it is a pipe"),
        (&["fit", text(&at("m.gguf"))], "file"),
        (&["--catalog", text(folder.path()), "fit"], "it is a pipe"),
        (&["fit", text(&at("pipe"))], "is a pipe: name a GGUF file"),
        (&["fit", text(folder.path())], "is a folder: name the GGUF"),
        (
            &["fit", "--on", QUAD, "--html", text(folder.path())],
            "it is a folder",
        ),
    ] {
        let said = complaint(args);
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn one_token() {
    let page = printed(&["fit", "llama-3.3-70b", "--on", QUAD, "--context", "1"]);
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(page.contains("1 token of context"), "{page}");
    assert!(!page.contains(" 1 tokens"), "{page}");
}

#[test]
fn a_model_of_a_hub_is_judged_by_its_header() {
    let hub = TestHub::start("o/huge", &[("huge-Q8_0.gguf", Content::huge())]);
    let fit = |name: &str| {
        let args = ["fit", name, "--on", QUAD, "--json"];
        let mut command = command(&args);
        let output = command.env("HF_ENDPOINT", hub.endpoint()).output().unwrap();
        (output.status.code(), output.stdout, output.stderr)
    };
    let (code, page, said) = fit("hf:o/huge:q8_0");
    let said = String::from_utf8(said).unwrap();
    assert_eq!(code, Some(0), "{said}");
    let page: Value = serde_json::from_slice(&page).unwrap();
    assert!(page.to_string().contains("huge-Q8_0"), "{page}");
    assert!(said.contains(" GB: the headers only"), "{said}");
    assert!(hub.served_bytes() < 32_000_000, "{}", hub.served_bytes());
    let (code, _, said) = fit("hf:o/huge:Q2_K");
    let said = String::from_utf8(said).unwrap();
    assert_eq!(code, Some(1));
    assert!(
        said.contains("hf:o/huge has no Q2_K; it has Q8_0 (4"),
        "{said}"
    );
}
