//! What is given: names, files, catalogs and measurements, and what is wrong with them.

use super::*;

const MEASUREMENTS: &str = include_str!("../../../../catalog/measurements.csv");

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
fn measurements_without_columns_or_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.csv");
    fs::write(&path, "id,model,machine\n").unwrap();
    let said = complaint(&["backtest", text(&path)]);
    assert!(
        said.contains("rows.csv:1: header: lacks the columns params_b, "),
        "{said}"
    );
    let all = MEASUREMENTS;
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
    let all = MEASUREMENTS;
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
    let header = MEASUREMENTS;
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
    let header = MEASUREMENTS;
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
