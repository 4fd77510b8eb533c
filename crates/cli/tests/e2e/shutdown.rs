//! However the lab ends, nothing stays behind.

use std::io::Write;
use std::net::TcpStream;

use brigade_gguf::testing::TinyModel;
use serde_json::json;

use crate::support::{
    Event, GONE, Lab, Scratch, Signal, Stream, chat, command_line, get, is_alive, send, smollm2,
    tree, wait_until,
};

fn tiny() -> Lab {
    let scratch = Scratch::new();
    let model = scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    Lab::start(scratch, &model, &["--nodes", "4"])
}

fn all_gone(pids: &[u32]) {
    wait_until("every process is gone", GONE, || {
        !pids.iter().any(|&pid| is_alive(pid))
    });
}

/// Every process of the lab but its own: four daemons, four pairs of a node and a stage, and the
/// tokenizer.
fn family(lab: &Lab) -> Vec<u32> {
    let family: Vec<u32> = tree(lab.pid()).into_iter().map(|(pid, _)| pid).collect();
    assert_eq!(family.len(), 13);
    let listed = [lab.pids("pid"), lab.pids("stage_pid")].concat();
    assert!(listed.iter().all(|pid| family.contains(pid)));
    family
}

#[test]
fn a_killed_lab_takes_its_processes_along() {
    let mut lab = tiny();
    let family = family(&lab);
    send(lab.pid(), Signal::KILL);
    assert!(lab.wait(GONE).is_some());
    all_gone(&family);
}

/// A stopped process cannot see that its parent is gone.
#[test]
fn even_stopped_ones() {
    let mut lab = tiny();
    let family = family(&lab);
    send(lab.pids("stage_pid")[1], Signal::STOP);
    send(lab.pids("pid")[2], Signal::STOP);
    send(lab.pid(), Signal::KILL);
    assert!(lab.wait(GONE).is_some());
    all_gone(&family);
}

#[test]
fn a_killed_lab_in_the_middle_of_answers() {
    let mut lab = Lab::start(Scratch::new(), &smollm2(), &["--nodes", "4"]);
    let family = family(&lab);
    let body = chat("Tell me a long story.", 450, &json!({}));
    let streams = [(); 3].map(|()| Stream::open(lab.api(), &body));
    for stream in &streams {
        stream.some_text(1);
    }
    send(lab.pid(), Signal::KILL);
    assert!(lab.wait(GONE).is_some());
    all_gone(&family);
    assert!(
        streams
            .iter()
            .all(|stream| !stream.rest().contains(&Event::Done))
    );
}

#[test]
fn signals_end_it_in_good_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let lab = tiny();
        let family = family(&lab);
        lab.end(signal);
        all_gone(&family);
    }
}

/// Hanging up has its usual effect, which `nohup` prevents.
#[test]
fn a_closed_terminal_takes_everything_along() {
    let lab = tiny();
    let family = family(&lab);
    lab.end_with(Signal::HUP, None);
    all_gone(&family);
}

#[test]
fn a_signal_while_a_text_is_being_tokenized() {
    let lab = tiny();
    let mut family = tree(lab.pid()).into_iter().map(|(pid, _)| pid);
    let tokenizer = family.find(|&pid| command_line(pid).contains("tokenizer"));
    send(tokenizer.unwrap(), Signal::STOP);
    let body = chat("hi", 2, &json!({})).to_string();
    let mut asking = TcpStream::connect(lab.api()).unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: lab\r\ncontent-type: application/json";
    write!(
        asking,
        "{head}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    // A later request that was answered shows that this one has arrived.
    assert_eq!(get(lab.api(), "/v1/models").0, 200);
    lab.end(Signal::TERM);
}

#[test]
fn a_signal_in_the_middle_of_an_answer() {
    let lab = Lab::start(Scratch::new(), &smollm2(), &["--nodes", "2"]);
    let stream = Stream::open(lab.api(), &chat("Tell me a long story.", 450, &json!({})));
    stream.some_text(2);
    lab.end(Signal::TERM);
    // The client learns that this is not the whole answer.
    let events = stream.rest();
    let error = events
        .iter()
        .any(|event| matches!(event, Event::Data(data) if data["error"].is_object()));
    assert!(
        error && !events.contains(&Event::Done),
        "{:?}",
        events.last()
    );
}

#[test]
fn a_signal_with_a_stopped_stage() {
    let lab = tiny();
    send(lab.pids("stage_pid")[1], Signal::STOP);
    lab.end(Signal::TERM);
}

#[test]
fn ctrl_c_ends_an_answer_to_once() {
    let question = [
        "--nodes",
        "2",
        "--once",
        "Tell me a long story.",
        "--max-tokens",
        "450",
    ];
    let mut lab = Lab::start_with(Scratch::new(), &smollm2(), &question);
    send(lab.pid(), Signal::INT);
    let status = lab.wait(GONE).expect("the lab did not end");
    assert!(!status.success());
    lab.scratch.assert_nothing_runs();
}

/// The lab is killed while its stages load, again and again at another moment.
#[test]
fn killed_while_it_starts() {
    let scratch = Scratch::new();
    let model = smollm2();
    for wanted in [2, 5, 8, 12] {
        let args = ["lab", "--api", "127.0.0.1:0", "--nodes", "4", "--model"];
        let mut command = scratch.command(&args);
        let mut child = command.arg(&model).spawn().unwrap();
        wait_until("some processes have started", GONE * 4, || {
            scratch.processes().len() >= wanted
        });
        send(child.id(), Signal::KILL);
        child.wait().unwrap();
        scratch.assert_nothing_runs();
    }
}
