use super::*;
use crate::cluster::{Cluster, Links};
use crate::machine::Pool;
use crate::memory::KvType;
use crate::placement::fixtures::*;
use crate::verdict::{Ask, plan};

fn emitted(model: &Model, cluster: &Cluster, engine: Engine) -> Result<String, Cannot> {
    changed(model, cluster, engine, |_| {})
}

/// The commands of a plan that was asked for otherwise.
fn changed(
    model: &Model,
    cluster: &Cluster,
    engine: Engine,
    change: impl FnOnce(&mut Run),
) -> Result<String, Cannot> {
    let ask = Ask {
        context: 8192,
        format: Some(model.quants[0].format),
        ..Ask::default()
    };
    let plan = plan(model, cluster, &ask, &Roofline).unwrap().unwrap();
    let mut run = Run {
        model,
        quant: &model.quants[0],
        cluster,
        plan: &plan,
        load: Load {
            kv_type: match engine {
                Engine::Brigade => KvType::F16,
                _ => KvType::Q8_0,
            },
            ..load(8192)
        },
        named: None,
        nodes: Nodes::ToStart,
    };
    change(&mut run);
    emit(&run, engine)
}

#[test]
fn brigade_over_four_macs() {
    let mut model = dense("d", 80, 110_000_000_000);
    model.architecture = "llama".into();
    insta::assert_snapshot!(emitted(&model, &quad(), Engine::Brigade).unwrap(), @r"
    # on node-1 (mac-mini-m4-pro-64gb), until Ctrl-C
    brigade up --name node-1
    # on node-1 too, once for each of the others: a token lets one node in
    brigade invite
    # on node-2 (mac-mini-m4-pro-64gb)
    brigade up --name node-2 --join <token>
    # on node-3 (mac-mini-m4-pro-64gb)
    brigade up --name node-3 --join <token>
    # on node-4 (mac-mini-m4-pro-64gb)
    brigade up --name node-4 --join <token>
    # then on node-1
    # <owner/repo> has GGUF files of d; a file's path will do as well
    # --on divides the layers by the memory that is free then; --plan FILE, in its place,
    # keeps to those of `brigade plan --json`
    brigade load hf:<owner/repo>:Q4_K_M --on node-1,node-2,node-3,node-4 --ctx 8192 --streams 1
    ");
    model.architecture = "unheard-of".into();
    let text = emitted(&model, &quad(), Engine::Brigade).unwrap();
    assert!(text.contains(" --streams 1 --engine llama-rpc\n"), "{text}");
    assert!(
        text.contains("# stages do not support the architecture unheard-of"),
        "{text}"
    );
}

#[test]
fn brigade_on_one_machine_or_on_nodes_that_are_up() {
    let mut model = dense("d", 80, 20_000_000_000);
    model.architecture = "llama".into();
    let one = cluster(vec![mac(64)], Links::Unnamed);
    let named = |name: &'static str| move |run: &mut Run| run.named = Some(name);
    let text = changed(&model, &one, Engine::Brigade, named("models/d.gguf")).unwrap();
    insta::assert_snapshot!(text, @r"
    # on node-1 (mac-mini-m4-pro-64gb), until Ctrl-C
    brigade up
    # then on node-1
    brigade load models/d.gguf --ctx 8192 --streams 1
    ");
    let text = changed(&model, &one, Engine::Brigade, |run| {
        run.nodes = Nodes::Up;
        run.named = Some("hf:o/d-GGUF:Q4_K_M@main");
        run.load.sequences = 3;
    });
    insta::assert_snapshot!(text.unwrap(), @"brigade load hf:o/d-GGUF:Q4_K_M@main --on node-1 --ctx 8192 --streams 3");
    for (name, expected) in [
        (
            "https://h/d.gguf?a=1&b=2",
            "load 'https://h/d.gguf?a=1&b=2' ",
        ),
        ("a; rm -rf ~.gguf", "load 'a; rm -rf ~.gguf' "),
        ("d/Config.JSON", "load hf:<owner/repo>:Q4_K_M "),
        ("-f.gguf", "load '-f.gguf' "),
    ] {
        let text = changed(&model, &one, Engine::Brigade, named(name)).unwrap();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn what_brigade_cannot() {
    let model = dense("d", 80, 20_000_000_000);
    let mut mlx = of_format(model.clone(), Format::Mlx);
    mlx.quants[0].name = "mlx-4bit".into();
    mlx.production.push("mlx-4bit".into());
    mlx.quants.push(model.quants[0].clone());
    let one = cluster(vec![mac(64)], Links::Unnamed);
    let spilled = moe("e", 48, 60_000_000_000);
    let rig = cluster(vec![rig(1, 128)], Links::Unnamed);
    let cases = [
        (
            emitted(&mlx, &one, Engine::Brigade),
            "choose --quant Q4_K_M",
        ),
        (
            changed(&model, &one, Engine::Brigade, |run| {
                run.load.kv_type = KvType::Q8_0;
            }),
            "without --kv-type q8_0",
        ),
        (
            emitted(&spilled, &rig, Engine::Brigade),
            "--emit llama-server runs it",
        ),
    ];
    for (got, says) in cases {
        let error = got.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(
            error.starts_with("Brigade cannot run this plan: "),
            "{error}"
        );
    }
}

/// exo's own card names the repository, unless it is of another model of the same shape.
#[test]
fn the_repository_of_a_quantization() {
    let mut model = of_format(dense("gemma-4-26b-a4b", 80, 110_000_000_000), Format::Mlx);
    model.repo = Some("google/gemma-4-26B-A4B-it".into());
    for (name, known) in [
        ("gemma-4-26b-a4b-it-4bit", true),
        ("gemma-4-26B-A4B-MLX-8Bit", true),
        ("gemma-4-26b-a4b-it-coder-4bit", false),
        ("gemma-4-26b", false),
        ("another-4-26b-a4b-it-4bit", false),
        ("gemma-4-26b-a4b-it-'4bit", false),
    ] {
        model.quants[0].source = format!("https://h/x cards/mlx-community--{name}.toml");
        let text = emitted(&model, &quad(), Engine::Exo).unwrap();
        let id = format!("\"model_id\": \"mlx-community/{name}\"");
        assert_eq!(text.contains(&id), known, "{text}");
        assert_eq!(text.contains("\"model_id\": \"<model>\""), !known, "{text}");
    }
}

/// A repository has one checkpoint; another one lies elsewhere.
#[test]
fn vllm_with_another_checkpoint() {
    let mut model = of_format(dense("d", 80, 70_000_000_000), Format::Safetensors);
    model.repo = Some("o/d".into());
    let mut host = cluster(vec![rig(8, 0)], Links::Unnamed);
    host.nodes[0].machine.pools.iter_mut().for_each(nvidia);
    let text = emitted(&model, &host, Engine::Vllm).unwrap();
    assert!(text.contains("vllm serve o/d "), "{text}");
    let fp8 = Quantization {
        name: "FP8".into(),
        ..model.quants[0].clone()
    };
    model.quants.insert(0, fp8);
    let text = emitted(&model, &host, Engine::Vllm).unwrap();
    assert!(
        text.contains("vllm serve '<a checkpoint of o/d at FP8>' "),
        "{text}"
    );
}

fn of_format(mut model: Model, format: Format) -> Model {
    model.quants[0].format = format;
    model
}

fn nvidia(pool: &mut Pool) {
    pool.family = "nvidia-consumer".into();
}

#[test]
fn llama_server_over_four_macs() {
    let model = dense("d", 80, 110_000_000_000);
    insta::assert_snapshot!(emitted(&model, &quad(), Engine::LlamaServer).unwrap(), @r#"
    # llama.cpp's RPC is neither encrypted nor authenticated: only on links that you trust.
    # on node-1 (mac-mini-m4-pro-64gb)
    rpc-server --host <address of node-1> --port 50052 --cache
    # on node-2 (mac-mini-m4-pro-64gb)
    rpc-server --host <address of node-2> --port 50052 --cache
    # on node-3 (mac-mini-m4-pro-64gb)
    rpc-server --host <address of node-3> --port 50052 --cache
    # on node-4 (mac-mini-m4-pro-64gb)
    llama-server --model <d-Q4_K_M.gguf> \
      --rpc '<address of node-1>:50052,<address of node-2>:50052,<address of node-3>:50052' \
      --split-mode layer --tensor-split 21,21,21,18 \
      --n-gpu-layers 81 --ctx-size 8192 --parallel 1 --ubatch-size 512 \
      --flash-attn on --cache-type-k q8_0 --cache-type-v q8_0
    "#);
}

#[test]
fn llama_server_with_experts_in_ram() {
    let cluster = cluster(vec![rig(1, 128)], Links::Unnamed);
    let model = moe("e", 48, 60_000_000_000);
    insta::assert_snapshot!(emitted(&model, &cluster, Engine::LlamaServer).unwrap(), @r#"
    # on node-1 (1x-rtx-3090)
    llama-server --model <e-Q4_K_M.gguf> \
      --n-gpu-layers 49 --ctx-size 8192 --parallel 1 --ubatch-size 512 \
      --flash-attn on --cache-type-k q8_0 --cache-type-v q8_0 --n-cpu-moe 37
    "#);
}

#[test]
fn llama_server_with_layers_in_ram_and_two_gpus() {
    let cluster = cluster(vec![rig(2, 128)], Links::Unnamed);
    let model = dense("d", 80, 60_000_000_000);
    insta::assert_snapshot!(emitted(&model, &cluster, Engine::LlamaServer).unwrap(), @r#"
    # on node-1 (2x-rtx-3090)
    llama-server --model <d-Q4_K_M.gguf> \
      --split-mode layer --tensor-split 26,26 \
      --n-gpu-layers 52 --ctx-size 8192 --parallel 1 --ubatch-size 512 \
      --flash-attn on --cache-type-k q8_0 --cache-type-v q8_0
    "#);
}

#[test]
fn exo_over_four_macs() {
    let model = of_format(dense("d", 80, 110_000_000_000), Format::Mlx);
    insta::assert_snapshot!(emitted(&model, &quad(), Engine::Exo).unwrap(), @r#"
    # exo has no authentication: only on networks that you trust. It divides the layers itself,
    # by free memory, and downloads the whole model to every node.
    # on node-1 (mac-mini-m4-pro-64gb), in exo's folder
    uv run exo
    # on node-2 (mac-mini-m4-pro-64gb), in exo's folder
    uv run exo
    # on node-3 (mac-mini-m4-pro-64gb), in exo's folder
    uv run exo
    # on node-4 (mac-mini-m4-pro-64gb), in exo's folder
    uv run exo
    # then on any of them; the plan is for 8,192 tokens of context, for which exo has no option
    # <model> is the MLX repository, such as mlx-community/...
    curl -X POST http://localhost:52415/place_instance -H 'Content-Type: application/json' \
      -d '{"model_id": "<model>", "sharding": "Pipeline", "instance_meta": "MlxRing", "min_nodes": 4}'
    "#);
}

#[test]
fn vllm_over_two_hosts() {
    let model = of_format(dense("d", 80, 70_000_000_000), Format::Safetensors);
    let mut cluster = cluster(vec![rig(2, 0); 2], Links::Uniform(link("10gbe", 0.2, 1.1)));
    for node in &mut cluster.nodes {
        node.machine.pools.iter_mut().for_each(nvidia);
    }
    insta::assert_snapshot!(emitted(&model, &cluster, Engine::Vllm).unwrap(), @r#"
    # vLLM divides the layers evenly; Ray is neither encrypted nor authenticated.
    # on node-1 (2x-rtx-3090)
    ray start --head --port=6379
    # on node-2 (2x-rtx-3090)
    ray start --address=<address of node-1>:6379
    # then on node-1
    vllm serve test/d --max-model-len 8192 --max-num-seqs 1 \
      --tensor-parallel-size 2 \
      --pipeline-parallel-size 2 --distributed-executor-backend ray
    "#);
}

#[test]
fn what_an_engine_cannot_is_said() {
    let gguf = dense("d", 80, 110_000_000_000);
    let mlx = of_format(gguf.clone(), Format::Mlx);
    let tensors = of_format(dense("d", 40, 30_000_000_000), Format::Safetensors);
    let rigs = cluster(vec![rig(2, 64)], Links::Unnamed);
    let spilled = moe("e", 48, 60_000_000_000);
    let two_spilled = {
        let mut two = cluster(vec![rig(1, 64), rig(1, 64)], Links::Uniform(tb5()));
        two.name = "two".into();
        two
    };
    let cases = [
        (emitted(&gguf, &quad(), Engine::Exo), "MLX"),
        (emitted(&gguf, &quad(), Engine::Vllm), "safetensors"),
        (emitted(&mlx, &quad(), Engine::LlamaServer), "GGUF"),
        (emitted(&tensors, &quad(), Engine::Vllm), "CUDA or ROCm"),
        (
            emitted(
                &of_format(dense("d", 40, 20_000_000_000), Format::Mlx),
                &rigs,
                Engine::Exo,
            ),
            "Apple silicon",
        ),
        (
            emitted(
                &moe("e", 48, 90_000_000_000),
                &two_spilled,
                Engine::LlamaServer,
            ),
            "system memory",
        ),
        (
            emitted(
                &of_format(spilled, Format::Safetensors),
                &cluster(vec![rig(1, 128)], Links::Unnamed),
                Engine::Vllm,
            ),
            "system memory",
        ),
    ];
    for (got, says) in cases {
        let error = got.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(error.contains("cannot run this plan"), "{error}");
    }
}

#[test]
fn a_shell_reads_names_as_words() {
    let names = [
        ("a; rm -rf ~", "--model '<a; rm -rf ~-Q4_K_M.gguf>' "),
        ("it's", r"--model '<it'\''s-Q4_K_M.gguf>' "),
        ("$(id)", "--model '<$(id)-Q4_K_M.gguf>' "),
        ("a\nrm b", "--model '<a rm b-Q4_K_M.gguf>' "),
        ("org/a_1.5-B", "--model <org/a_1.5-B-Q4_K_M.gguf> "),
    ];
    for (name, expected) in names {
        let model = Model {
            id: name.to_owned(),
            ..dense("d", 80, 110_000_000_000)
        };
        let mut places = quad();
        places.nodes[0].name = "x'; id; '".into();
        places.nodes[1].machine.name = "a box\nid".into();
        let text = emitted(&model, &places, Engine::LlamaServer).unwrap();
        assert!(text.contains(expected), "{text}");
        assert!(
            text.contains(r"--host '<address of x'\''; id; '\''>' ")
                && text.contains(r"--rpc '<address of x'\''; id; '\''>:50052,"),
            "{text}"
        );
        let starts = ["# ", "rpc-server ", "llama-server ", "  --"];
        let whole = |line: &str| starts.iter().any(|start| line.starts_with(start));
        assert!(text.lines().all(whole), "{text}");
    }
    let mut model = of_format(dense("d", 80, 110_000_000_000), Format::Safetensors);
    model.repo = Some("a/b c".into());
    let mut host = cluster(vec![rig(8, 0)], Links::Unnamed);
    host.nodes[0].machine.pools.iter_mut().for_each(nvidia);
    let text = emitted(&model, &host, Engine::Vllm).unwrap();
    assert!(text.contains("vllm serve 'a/b c' "), "{text}");
}
