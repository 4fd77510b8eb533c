//! Plans, and the commands of other engines that run them.

use super::*;

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
