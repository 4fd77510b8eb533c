//! Stages that stop, processes that are killed.

use std::time::{Duration, Instant};

use brigade_gguf::testing::TinyModel;
use serde_json::{Value, json};

use crate::support::{
    Event, GONE, Lab, Scratch, Signal, Stream, chat, children, command_line, cpu_ticks, is_alive,
    post, send, smollm2, tree, wait_until,
};

fn story(max_tokens: u32) -> Value {
    chat("Tell me a long story.", max_tokens, &json!({}))
}

fn four() -> Lab {
    Lab::start(
        Scratch::new(),
        &smollm2(),
        &["--nodes", "4", "--threads", "1"],
    )
}

fn all_text<'a>(events: impl IntoIterator<Item = &'a Event>) -> String {
    events.into_iter().map(Event::text).collect()
}

#[test]
fn a_stopped_stage_stalls_the_answer() {
    let lab = four();
    let undisturbed = all_text(&Stream::open(lab.api(), &story(100)).rest());
    for stage in [lab.pids("stage_pid")[0], lab.pids("stage_pid")[2]] {
        let stream = Stream::open(lab.api(), &story(100));
        let mut events = stream.some_text(3);
        send(stage, Signal::STOP);
        // What is on its way still arrives; then nothing does.
        events.extend(
            stream
                .until_quiet(Duration::from_secs(1))
                .expect("the answer ended"),
        );
        assert!(
            !events.contains(&Event::Done),
            "the answer was over too soon"
        );
        send(stage, Signal::CONT);
        events.extend(stream.rest());
        assert_eq!(events.last(), Some(&Event::Done));
        assert_eq!(all_text(&events), undisturbed);
    }
    lab.end(Signal::TERM);
}

/// Kills a process in the middle of an answer; gives the lab and the error that the client got.
fn killed(pick: impl Fn(&Lab) -> u32) -> (Lab, Value) {
    let lab = four();
    let stream = Stream::open(lab.api(), &story(450));
    stream.some_text(3);
    let pid = pick(&lab);
    send(pid, Signal::KILL);
    let events = stream.rest();
    let Some(Event::Data(last)) = events.last() else {
        panic!("no error, but {:?}", events.last());
    };
    let error = last["error"].clone();
    assert_eq!(error["type"], "server_error");
    assert_eq!(error["code"], "unavailable");

    let (status, body) = post(lab.api(), &story(4));
    assert_eq!(status, 503, "{body}");
    assert_eq!(body["error"]["code"], "unavailable");
    assert_eq!(body["error"]["message"], error["message"]);
    (lab, error)
}

#[test]
fn a_killed_stage_is_named() {
    let (lab, error) = killed(|lab| lab.pids("stage_pid")[1]);
    insta::assert_snapshot!(error["message"].as_str().unwrap(), @"node-2 lost its stage: it was ended by signal 9 (killed, perhaps for want of memory)");
    // Its node lives on and has taken note of the end, so that no zombie is left.
    let node = lab.pids("pid")[1];
    assert!(is_alive(node));
    let stage = lab.pids("stage_pid")[1];
    wait_until("the stage is reaped", GONE, || {
        tree(node).iter().all(|&(pid, _)| pid != stage)
    });
    lab.end_failed();
}

#[test]
fn a_killed_node_is_named() {
    let (lab, error) = killed(|lab| lab.pids("pid")[2]);
    insta::assert_snapshot!(error["message"].as_str().unwrap(), @"node-3 is gone: the connection to it is closed");
    let stage = lab.pids("stage_pid")[2];
    wait_until("its stage went with it", GONE, || !is_alive(stage));
    lab.end_failed();
}

#[test]
fn once_fails_with_its_stage() {
    let question = [
        "--nodes",
        "4",
        "--once",
        "Tell me a long story.",
        "--max-tokens",
        "450",
    ];
    let mut lab = Lab::start_with(Scratch::new(), &smollm2(), &question);
    // A stage that was idle when the lab got ready computes only once the question has come.
    let stage = lab.pids("stage_pid")[3];
    let idle = cpu_ticks(stage);
    wait_until("the answer is under way", GONE, || {
        cpu_ticks(stage) >= idle + 5
    });
    send(stage, Signal::KILL);
    let status = lab.wait(GONE).expect("the lab did not end");
    assert_eq!(status.code(), Some(1));
    insta::assert_snapshot!(lab.stderr(), @"brigade: the answer broke off: node-4 lost its stage: it was ended by signal 9 (killed, perhaps for want of memory)");
}

#[test]
fn a_killed_tokenizer_is_started_again() {
    let scratch = Scratch::new();
    let model = scratch.tiny("tiny.gguf", &TinyModel::llama(2));
    let lab = Lab::start(scratch, &model, &["--nodes", "2"]);
    let tokenizer = || {
        let mut all = children(lab.pids("pid")[0]).into_iter().map(|(pid, _)| pid);
        all.find(|&pid| command_line(pid).contains("tokenizer"))
    };
    let first = tokenizer().unwrap();
    send(first, Signal::KILL);
    wait_until("the tokenizer is gone", GONE, || !is_alive(first));
    let (status, body) = post(lab.api(), &chat("hi", 2, &json!({})));
    assert_eq!(status, 200, "{body}");
    assert_ne!(tokenizer().unwrap(), first);
    lab.end(Signal::TERM);
}

/// Tokenizing megabytes takes seconds, in which nobody else's text is tokenized.
#[test]
fn a_prompt_that_cannot_fit_is_refused_before_it_is_tokenized() {
    let lab = Lab::start(Scratch::new(), &smollm2(), &["--nodes", "1"]);
    let start = Instant::now();
    let (status, body) = post(lab.api(), &chat(&"a".repeat(3_000_000), 2, &json!({})));
    assert_eq!(status, 400, "{body}");
    assert_eq!(body["error"]["code"], "context_length_exceeded");
    assert!(start.elapsed() < GONE, "{:?}", start.elapsed());
    lab.end(Signal::TERM);
}
