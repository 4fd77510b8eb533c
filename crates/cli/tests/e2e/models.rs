//! `brigade models`, beside processes that use what it may remove.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use brigade_hub::testing::{COMMIT, Content, TestHub};
use serde_json::{Value, json};

use crate::support::{
    Ended, Fleet, GONE, Lab, SOON, Scratch, Signal, chat, gemma3, post, send, smollm2, text,
    wait_until,
};

/// `brigade models` for a cache.
fn models(scratch: &Scratch, cache: &Path, args: &[&str]) -> Ended {
    let mut command = scratch.command(&[&["models"], args].concat());
    command.env("BRIGADE_CACHE", cache);
    let output = command.output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// What is in a cache: each part as `model: part`, and whether it is in use.
fn parts(scratch: &Scratch, cache: &Path) -> Vec<(String, bool)> {
    let ended = models(scratch, cache, &["--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let listed: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(listed["schema"], "brigade.models/1");
    let mut found = Vec::new();
    for model in listed["models"].as_array().unwrap() {
        for part in model["parts"].as_array().unwrap() {
            let [name, part_name] =
                [&model["model"], &part["part"]].map(|name| name.as_str().unwrap());
            found.push((
                format!("{name}: {part_name}"),
                part["in_use"].as_bool().unwrap(),
            ));
        }
    }
    found
}

fn with_use(parts: &[&str], used: bool) -> Vec<(String, bool)> {
    parts
        .iter()
        .map(|part| ((*part).to_owned(), used))
        .collect()
}

#[test]
fn a_stage_that_is_served_stays_until_its_process_is_gone() {
    const STAGES: [&str; 2] = [
        "SmolLM2-135M-Instruct.Q4_1: 0..16",
        "SmolLM2-135M-Instruct.Q4_1: 16..30",
    ];
    const NAME: &str = "SmolLM2-135M-Instruct.Q4_1";
    let mut lab = Lab::start(Scratch::new(), &smollm2(), &["--nodes", "2"]);
    let cache = lab.scratch.cache();
    assert_eq!(parts(&lab.scratch, &cache), with_use(&STAGES, true));
    let refused = models(&lab.scratch, &cache, &["remove", NAME]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("/0..16 is in use") && refused.stderr.contains("/16..30 is in use"),
        "{}",
        refused.stderr
    );
    assert_eq!(parts(&lab.scratch, &cache), with_use(&STAGES, true));
    let body = chat("hi", 4, &json!({}));
    assert_eq!(post(lab.api(), &body).0, 200);

    // Locks end with whoever has them, however it ends.
    send(lab.pid(), Signal::KILL);
    lab.wait(GONE).unwrap();
    lab.scratch.assert_nothing_runs();
    assert_eq!(parts(&lab.scratch, &cache), with_use(&STAGES, false));
    let listed = models(&lab.scratch, &cache, &[]).stdout;
    assert!(
        listed.contains("  layers 0..16") && listed.contains("just now"),
        "{listed}"
    );
    let removed = models(&lab.scratch, &cache, &["remove", NAME, "--json"]);
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    let removed: Value = serde_json::from_str(&removed.stdout).unwrap();
    assert_eq!(removed["removed"].as_array().unwrap().len(), 2);
    assert!(
        removed["freed_bytes"].as_u64().unwrap() > 90_000_000,
        "{removed}"
    );
    assert_eq!(parts(&lab.scratch, &cache), []);
    assert_eq!(fs::read_dir(cache.join("stages")).unwrap().count(), 0);
}

#[test]
fn what_was_fetched_stays_while_it_is_fetched_and_while_it_is_served() {
    const SERVED: [&str; 2] = [
        "SmolLM2-135M-Instruct.Q4_1: whole",
        "SmolLM2-135M-Instruct.Q4_1: header",
    ];
    let file = smollm2();
    let name = file.file_name().unwrap().to_str().unwrap();
    let content = Content::Bytes(std::sync::Arc::new(fs::read(&file).unwrap()));
    let hub = TestHub::start("someone/smollm2", &[(name, content)]);
    let fleet = Fleet::apart(&["a"], hub.endpoint());
    let cache = fleet.cache("a");
    hub.set_speed_after(4 << 20, 2_000_000);
    let load = [
        "load",
        "hf:someone/smollm2",
        "--ctx=512",
        "--threads=1",
        "--yes",
    ];
    let loading = fleet.spawn("a", &load);
    let whole = || {
        let parts = parts(&fleet.scratch, &cache);
        parts
            .iter()
            .any(|(part, used)| part.ends_with(": whole") && *used)
    };
    wait_until("it is being fetched", SOON, whole);
    let refused = models(
        &fleet.scratch,
        &cache,
        &["remove", "SmolLM2-135M-Instruct.Q4_1"],
    );
    assert!(
        refused
            .stderr
            .contains("/whole is being written or fetched"),
        "{}",
        refused.stderr
    );
    hub.set_speed_after(u64::MAX, 1000);
    assert_eq!(loading.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(parts(&fleet.scratch, &cache), with_use(&SERVED, true));
    let refused = models(
        &fleet.scratch,
        &cache,
        &["remove", "SmolLM2-135M-Instruct.Q4_1"],
    );
    assert_eq!(refused.code, Some(1));

    assert_eq!(fleet.run("a", &["unload"]).code, Some(0));
    // The tokenizer may take a moment.
    wait_until("nothing is in use", GONE, || {
        parts(&fleet.scratch, &cache).iter().all(|part| !part.1)
    });
    let removed = models(
        &fleet.scratch,
        &cache,
        &["remove", "SmolLM2-135M-Instruct.Q4_1"],
    );
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    assert!(removed.stderr.contains(" bytes ("), "{}", removed.stderr);
    assert_eq!(parts(&fleet.scratch, &cache), []);
    // The daemon fetches it again, as if it had never been here.
    fleet.json("a", &load);
    assert_eq!(parts(&fleet.scratch, &cache), with_use(&SERVED, true));
    fleet.end();
}

#[test]
fn a_model_tells_what_it_is() {
    let scratch = Scratch::new();
    let inspect = |model: &Path| {
        let ended = models(
            &scratch,
            &scratch.cache(),
            &["inspect", text(model), "--json"],
        );
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        serde_json::from_str::<Value>(&ended.stdout).unwrap()
    };
    let smollm2 = inspect(&smollm2());
    assert_eq!(smollm2["schema"], "brigade.model/1");
    assert_eq!(
        (&smollm2["architecture"], &smollm2["layers"]),
        (&json!("llama"), &json!(30))
    );
    assert_eq!(smollm2["engine"], "stages");
    assert_eq!(smollm2["cuts"].as_array().unwrap().len(), 29);
    assert_eq!(smollm2["quantization"]["named"], "Q4_1");
    assert_eq!(smollm2["quantization"]["mix"][0]["type"], "Q4_1");
    assert_eq!(smollm2["chat_template"]["family"], "ChatML");
    let gemma3 = inspect(&gemma3());
    assert_eq!(gemma3["chat_template"], Value::Null);
    let missing = models(&scratch, &scratch.cache(), &["inspect", "missing.gguf"]);
    assert_eq!(missing.code, Some(1));
    assert!(
        missing.stderr.contains("missing.gguf"),
        "{}",
        missing.stderr
    );
}

/// Puts SmolLM2 where Hugging Face's tools would have put it for this user.
fn in_hugging_face(user: &Path) -> PathBuf {
    let repo = user.join(".cache/huggingface/hub/models--someone--smollm2");
    let snapshot = repo.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repo.join("refs")).unwrap();
    fs::write(repo.join("refs/main"), COMMIT).unwrap();
    let link = snapshot.join(smollm2().file_name().unwrap());
    symlink(smollm2(), &link).unwrap();
    link
}

#[test]
fn what_other_programs_have_is_used_where_it_lies() {
    const NAME: &str = "hf:someone/smollm2:Q4_1";
    let scratch = Scratch::new();
    let link = in_hugging_face(&scratch.user());
    let lm_studio = scratch.user().join(".lmstudio/models/google/gemma");
    fs::create_dir_all(&lm_studio).unwrap();
    symlink(gemma3(), lm_studio.join("gemma-3-270m-q4_k_m.gguf")).unwrap();
    let ollama = scratch.user().join(".ollama/models");
    let (hash, size) = ("a".repeat(64), fs::metadata(gemma3()).unwrap().len());
    fs::create_dir_all(ollama.join("blobs")).unwrap();
    symlink(gemma3(), ollama.join(format!("blobs/sha256-{hash}"))).unwrap();
    let manifest = ollama.join("manifests/registry.ollama.ai/library/gemma3");
    fs::create_dir_all(&manifest).unwrap();
    let layer = json!({"mediaType": "application/vnd.ollama.image.model", "digest": format!("sha256:{hash}"), "size": size});
    fs::write(
        manifest.join("270m"),
        json!({ "layers": [layer] }).to_string(),
    )
    .unwrap();

    let listed = models(&scratch, &scratch.cache(), &["--json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let there = listed["elsewhere"].as_array().unwrap().iter();
    let there: Vec<_> = there
        .map(|kept| kept["reference"].as_str().unwrap())
        .collect();
    assert_eq!(
        there,
        [NAME, "hf:google/gemma:Q4_K_M", "ollama:gemma3:270m"]
    );
    assert_eq!(listed["elsewhere"][0]["path"], text(&link));

    // No server is asked: there is none.
    let offline = |args: &[&str]| {
        let mut command = scratch.command(args);
        command.env("HF_ENDPOINT", "http://127.0.0.1:1");
        scratch.finish(command, "")
    };
    let ask = |model: &str| {
        let question = ["What is the capital of France?", "--ctx=512", "--threads=1"];
        let few = ["--temperature=0", "--max-tokens=8"];
        let ended = offline(&[&["run", model][..], &question, &few].concat());
        assert_eq!(ended.code, Some(0), "{model}: {}", ended.stderr);
        ended.stdout
    };
    assert_eq!(ask(NAME), ask(text(&smollm2())));
    let gemma3 = ask(text(&gemma3()));
    assert_eq!(ask("ollama:gemma3:270m"), gemma3);
    assert_eq!(ask("hf:google/gemma"), gemma3);
    assert!(!scratch.cache().join("fetched").exists());
    for model in [NAME, "ollama:gemma3:270m"] {
        let fit = offline(&["fit", model, "--on", "mac-mini-m4-pro-64gb", "--json"]);
        assert_eq!(fit.code, Some(0), "{}", fit.stderr);
    }
    for (model, expected) in [
        (
            "ollama:llama3.2",
            "ollama:llama3.2 is not here; Ollama has ollama:gemma3:270m",
        ),
        (
            "hf:someone/smollm2:Q8_0",
            "on this machine there is hf:someone/smollm2:Q4_1",
        ),
    ] {
        let ended = offline(&["run", model, "hi"]);
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
}

#[test]
fn nodes_use_what_other_programs_have_on_them() {
    let file = smollm2();
    let name = file.file_name().unwrap().to_str().unwrap();
    let content = Content::Bytes(std::sync::Arc::new(fs::read(&file).unwrap()));
    let hub = TestHub::start("someone/smollm2", &[(name, content)]);
    let fleet = Fleet::apart(&["a", "b"], hub.endpoint());
    let load = [
        "load",
        "hf:someone/smollm2",
        "--ctx=512",
        "--threads=1",
        "--yes",
        "--on",
    ];
    // The one that coordinates has it: no server is asked.
    in_hugging_face(&fleet.user("a"));
    fleet.json("a", &[&load[..], &["a,b"]].concat());
    assert_eq!(hub.served_bytes(), 0);
    let body = chat("What is the capital of France?", 12, &json!({}));
    let from_a = post(fleet.node("a").api(), &body).1["choices"][0]["message"].clone();
    assert_eq!(fleet.run("a", &["unload"]).code, Some(0));
    // The other way round: of what b has, nothing is fetched.
    fs::remove_dir_all(fleet.user("a")).unwrap();
    in_hugging_face(&fleet.user("b"));
    fleet.json("a", &[&load[..], &["b"]].concat());
    assert!(hub.served_bytes() < 8 << 20, "{}", hub.served_bytes());
    assert_eq!(
        post(fleet.node("a").api(), &body).1["choices"][0]["message"],
        from_a
    );
    fleet.end();
}

#[test]
fn a_limit_drops_what_was_used_least_recently_and_says_so() {
    const LIMIT: u64 = 200_000_000;
    let mut fleet = Fleet::new();
    fleet.start("a", &["--cache-limit", "200MB"]);
    let token = fleet.token("a");
    fleet.start("b", &["--cache-limit", "0.2GB", "--join", &token]);
    fleet.wait_until_all_up();
    let (model, plan) = (smollm2(), fleet.scratch.path("plan.json"));
    let load = |cut: u32| {
        let stage = |node, layers: [u32; 2]| json!({ "node": node, "layers": layers });
        let stages = [stage("a", [0, cut]), stage("b", [cut, 30])];
        let text_of = json!({ "schema": "brigade.plan/1", "stages": stages }).to_string();
        fs::write(&plan, text_of).unwrap();
        let usual = [
            "load",
            text(&model),
            "--ctx=512",
            "--threads=1",
            "--yes",
            "--plan",
        ];
        fleet.json("a", &[&usual[..], &[text(&plan)]].concat());
    };
    let cache = fleet.scratch.cache();
    let used = ["0..10", "10..30"].map(|layers| format!("SmolLM2-135M-Instruct.Q4_1: {layers}"));
    // Some 126 MB each way of cutting it.
    load(15);
    assert_eq!(fleet.run("a", &["unload"]).code, Some(0));
    load(10);
    let there = parts(&fleet.scratch, &cache);
    let in_use: Vec<_> = there
        .iter()
        .filter(|part| part.1)
        .map(|part| &part.0)
        .collect();
    assert_eq!(in_use, [&used[0], &used[1]]);
    let listed = fleet.json("a", &["models"]);
    assert_eq!(listed["limit_bytes"], LIMIT);
    assert!(listed["used_bytes"].as_u64().unwrap() <= LIMIT, "{listed}");
    wait_until("what was dropped is told", SOON, || {
        let said = ["a", "b"].map(|node| fleet.node(node).stderr());
        said.concat().contains("dropped from the cache")
    });
    // What does not fit is refused, and drops nothing.
    let refused = fleet.complaint(
        "a",
        &["load", text(&gemma3()), "--on=a,b", "--yes", "--threads=1"],
    );
    assert!(refused.contains("raise --cache-limit"), "{refused}");

    // A model that shall be loaded keeps its stages while its daemon is down.
    fleet.kill("a");
    wait_until("nothing is in use", SOON, || {
        parts(&fleet.scratch, &cache).iter().all(|part| !part.1)
    });
    let refused = fleet.complaint("a", &["models", "remove", "SmolLM2-135M-Instruct.Q4_1"]);
    for layers in ["/0..10", "/10..30"] {
        let expected = format!("{layers} is needed by a model that is loaded");
        assert!(refused.contains(&expected), "{refused}");
    }
    let there = parts(&fleet.scratch, &cache);
    let there: Vec<_> = there.iter().map(|part| &part.0).collect();
    assert_eq!(there, [&used[0], &used[1]]);
}
