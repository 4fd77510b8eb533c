//! Instances over real sockets, with simulated stages in threads.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::time::Duration;

use brigade_engine::sim::{SimModel, SimStage};
use brigade_engine::{Input, Stage, StageError};
use brigade_wire::{Hop, KvOp, Span, StageParams};

use super::*;
use crate::link::{Guard, KeyPair};
use crate::listen::Listen;
use crate::stage_process::{StageIdentity, serve};

const MODEL: SimModel = SimModel {
    layers: 6,
    vocabulary: 50,
    seed: 7,
};
const SEQUENCES: u32 = 2;
const CONTEXT: u32 = 4096;

fn params() -> StageParams {
    StageParams {
        context_tokens: CONTEXT,
        sequences: SEQUENCES,
        batch_tokens: scheduler(1).batch_tokens(),
        flash_attention: true,
        draft_tokens: 0,
    }
}

fn scheduler(stages: u32) -> SchedulerConfig {
    SchedulerConfig {
        stages,
        sequences: SEQUENCES,
        context_tokens: CONTEXT,
        chunk_tokens: 8,
        waiting_limit: 16,
        keeps_prefixes: true,
        preempt_after_tokens: 0,
        draft_tokens: 0,
    }
}

/// A simulated stage that comes to an end when it has computed so many steps.
struct Mortal {
    stage: SimStage,
    steps_left: usize,
    end: fn() -> StageError,
}

impl Stage for Mortal {
    fn hidden_size(&self) -> usize {
        self.stage.hidden_size()
    }

    fn vocabulary(&self) -> Option<usize> {
        self.stage.vocabulary()
    }

    fn apply(&mut self, op: KvOp) -> Result<(), StageError> {
        self.stage.apply(op)
    }

    fn forward(
        &mut self,
        spans: &[Span],
        input: Input<'_>,
        output: &mut Vec<f32>,
    ) -> Result<(), StageError> {
        if self.steps_left == 0 {
            self.steps_left = usize::MAX;
            return Err((self.end)());
        }
        self.steps_left -= 1;
        self.stage.forward(spans, input, output)
    }

    fn lengths(&self) -> &[u32] {
        self.stage.lengths()
    }

    fn clear(&mut self) {
        self.stage.clear();
    }
}

/// Serves a layer range in a thread, for as long as the test process lives.
fn stage(layers: Range<u32>, steps: usize) -> SocketAddr {
    guarded_stage(layers, steps, out_of_luck, None)
}

fn out_of_luck() -> StageError {
    StageError::Engine("out of luck".to_owned())
}

fn guarded_stage(
    layers: Range<u32>,
    steps: usize,
    end: fn() -> StageError,
    guard: Option<Guard>,
) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let identity = StageIdentity {
            build: "this build".to_owned(),
            model: "sim".to_owned(),
            params: params(),
            guard,
        };
        let mut stage = Mortal {
            stage: SimStage::new(MODEL, layers, SEQUENCES, CONTEXT),
            steps_left: steps,
            end,
        };
        serve(&listener, &identity, &mut stage)
    });
    address
}

fn spec(stages: &[SocketAddr]) -> ChainSpec {
    ChainSpec {
        build: "this build".to_owned(),
        model: "sim".to_owned(),
        hidden_size: 2,
        vocabulary: MODEL.vocabulary as u32,
        params: params(),
        stages: stages
            .iter()
            .map(|&address| Hop { address, key: None })
            .collect(),
        listen: Listen::LOOPBACK,
        back: (Ipv4Addr::LOCALHOST, 0).into(),
        guard: None,
    }
}

fn vocabulary() -> Arc<VocabularyFacts> {
    Arc::new(VocabularyFacts {
        pieces: (0..MODEL.vocabulary)
            .map(|token| format!("<{token}>").into_bytes())
            .collect(),
        longest_piece: 4,
        bos: String::new(),
        eos: String::new(),
        end_of_generation: Vec::new(),
        control: Vec::new(),
    })
}

fn open(spec: &ChainSpec) -> Result<Instance, NodeError> {
    let stages = spec.stages.len() as u32;
    Instance::open(spec, scheduler(stages), vocabulary(), |reason| reason)
}

fn prompt(tokens: &[Token], max_tokens: u32) -> Prompt {
    Prompt::greedy(tokens.to_vec(), max_tokens, End::Respected)
}

fn finish(mut answer: Answer) -> Result<String, String> {
    let mut whole = String::new();
    loop {
        match answer.next_blocking() {
            Some(Event::Token { text, .. }) => whole.push_str(&text),
            Some(Event::Done { text, .. }) => return Ok(whole + &text),
            Some(Event::Started { .. }) => {}
            Some(Event::Failed(reason) | Event::Refused(reason)) => return Err(reason),
            None => return Err("no end".to_owned()),
        }
    }
}

#[test]
fn three_stages_answer_like_one() {
    let whole = open(&spec(&[stage(0..6, usize::MAX)])).unwrap();
    let staged = open(&spec(&[
        stage(0..2, usize::MAX),
        stage(2..3, usize::MAX),
        stage(3..6, usize::MAX),
    ]))
    .unwrap();
    let prompts: Vec<Vec<Token>> = (0..7)
        .map(|i| (0..20 + i).map(|token| (token * 3 + i) % 50).collect())
        .collect();
    let expected: Vec<_> = prompts
        .iter()
        .map(|tokens| finish(whole.submit(prompt(tokens, 12)).unwrap()).unwrap())
        .collect();
    // More at once than there are sequences.
    let answers: Vec<_> = prompts
        .iter()
        .map(|tokens| staged.submit(prompt(tokens, 12)).unwrap())
        .collect();
    let actual: Vec<_> = answers
        .into_iter()
        .map(|answer| finish(answer).unwrap())
        .collect();
    assert_eq!(expected, actual);
    assert_ne!(expected[0], expected[1]);
    // Every stage told how long it took, and the first step was alone in the chain.
    let measured = staged.measured();
    assert_eq!(measured.stages.len(), 3);
    assert!(measured.links.is_some());
}

/// Stages that know whom to expect, and the chain through them.
fn encrypted(ranges: &[Range<u32>]) -> ChainSpec {
    let coordinator = KeyPair::generate();
    let mut upstream = coordinator.public();
    let mut hops = Vec::new();
    for range in ranges {
        let own = KeyPair::generate();
        let key = own.public();
        let guard = Some(Guard { own, upstream });
        let address = guarded_stage(range.clone(), usize::MAX, out_of_luck, guard);
        hops.push(Hop {
            address,
            key: Some(key),
        });
        upstream = key;
    }
    ChainSpec {
        stages: hops,
        guard: Some(Guard {
            own: coordinator,
            upstream,
        }),
        ..spec(&[])
    }
}

#[test]
fn an_encrypted_chain_answers_like_a_plain_one() {
    let plain = open(&spec(&[stage(0..6, usize::MAX)])).unwrap();
    let instance = open(&encrypted(&[0..2, 2..3, 3..6])).unwrap();
    let tokens: Vec<Token> = (0..40).collect();
    assert_eq!(
        finish(instance.submit(prompt(&tokens, 30)).unwrap()),
        finish(plain.submit(prompt(&tokens, 30)).unwrap())
    );
}

#[test]
fn nobody_but_the_expected_peer_opens_or_closes_an_encrypted_chain() {
    let good = encrypted(&[0..3, 3..6]);
    let with = |change: fn(&mut ChainSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        open(&spec).unwrap_err().to_string()
    };
    // Another coordinator, with a key of its own.
    let error = with(|spec| spec.guard.as_mut().unwrap().own = KeyPair::generate());
    assert!(
        error.contains("the peer does not know this side's key"),
        "{error}"
    );
    // Another stage behind the address.
    let error = with(|spec| spec.stages[0].key = Some(KeyPair::generate().public()));
    assert!(error.contains("it proved another key"), "{error}");
    let error = with(|spec| spec.stages[1].key = Some(KeyPair::generate().public()));
    assert!(
        error.starts_with("stage 0: ") && error.contains("it proved another key"),
        "{error}"
    );
    // The last stage is let in by its key alone.
    let error = with(|spec| spec.guard.as_mut().unwrap().upstream = KeyPair::generate().public());
    assert!(error.starts_with("stage 1: "), "{error}");
    // Nobody speaks to it in the clear.
    let error = with(|spec| {
        spec.guard = None;
        for hop in &mut spec.stages {
            hop.key = None;
        }
    });
    assert!(error.contains("cannot build the chain"), "{error}");
    // None of these did any harm.
    let instance = open(&good).unwrap();
    finish(instance.submit(prompt(&[1, 2, 3], 3)).unwrap()).unwrap();
}

#[test]
fn a_stop_string_ends_the_answer_and_frees_the_sequence() {
    let instance = open(&spec(&[stage(0..6, usize::MAX)])).unwrap();
    let full = finish(instance.submit(prompt(&[1, 2, 3], 8)).unwrap()).unwrap();
    let third = full.match_indices('<').nth(2).unwrap().0;
    let end = full[third..].find('>').unwrap() + third + 1;
    let stop = full[third..end].to_owned();
    let expected = &full[..full.find(&stop).unwrap()];
    // More often than there are sequences.
    for _ in 0..5 {
        let mut request = prompt(&[1, 2, 3], 1000);
        request.stop = vec![stop.clone()];
        let answer = finish(instance.submit(request).unwrap()).unwrap();
        assert_eq!(answer, expected);
    }
}

#[test]
fn a_dropped_answer_makes_room() {
    let instance = open(&spec(&[stage(0..3, usize::MAX), stage(3..6, usize::MAX)])).unwrap();
    let abandoned: Vec<_> = (0..5)
        .map(|_| instance.submit(prompt(&[1, 2, 3], CONTEXT)).unwrap())
        .collect();
    drop(abandoned);
    assert!(instance.shared.lock().answers.is_empty());
    let load = instance.shared.lock().scheduler.load();
    assert_eq!((load.waiting, load.active), (0, 0));
    finish(instance.submit(prompt(&[1, 2, 3], 3)).unwrap()).unwrap();
}

#[test]
fn a_failing_stage_ends_the_answers_and_serves_the_next_chain() {
    let stages = [
        stage(0..2, usize::MAX),
        stage(2..4, 9),
        stage(4..6, usize::MAX),
    ];
    let instance = open(&spec(&stages)).unwrap();
    let answers: Vec<_> = (0..2)
        .map(|_| instance.submit(prompt(&[1, 2, 3], 1000)).unwrap())
        .collect();
    for answer in answers {
        assert_eq!(finish(answer), Err("stage 1: out of luck".to_owned()));
    }
    let refused = instance.submit(prompt(&[1], 1)).unwrap_err();
    assert_eq!(refused.to_string(), "stage 1: out of luck");
    drop(instance);
    let again = open(&spec(&stages)).unwrap();
    finish(again.submit(prompt(&[1, 2, 3], 20)).unwrap()).unwrap();
}

#[test]
fn a_stage_that_hangs_ends_the_answers() {
    let hang = || -> StageError {
        loop {
            thread::park();
        }
    };
    let stages = [stage(0..3, usize::MAX), guarded_stage(3..6, 20, hang, None)];
    let instance = open(&spec(&stages)).unwrap();
    // A minute in 1.2 s.
    let shared = Arc::downgrade(&instance.shared);
    thread::spawn(move || watch::watch(&shared, Duration::from_millis(20)));
    let answer = instance.submit(prompt(&[1, 2, 3], 1000)).unwrap();
    let reason = finish(answer).unwrap_err();
    assert_eq!(reason, "a stage hangs: no answer for 60 s");
    assert_eq!(instance.failure(), Some(reason));
}

#[test]
fn a_chain_that_has_nothing_to_do_owes_nothing_and_is_watched_to_its_end() {
    let instance = open(&spec(&[stage(0..6, usize::MAX)])).unwrap();
    let shared = Arc::downgrade(&instance.shared);
    let watcher = thread::spawn(move || watch::watch(&shared, Duration::from_millis(20)));
    finish(instance.submit(prompt(&[1, 2, 3], 5)).unwrap()).unwrap();
    // What the answer held is removed from the KV cache yet.
    while instance.shared.lock().scheduler.awaited().is_some() {
        thread::yield_now();
    }
    assert_eq!(instance.failure(), None);
    drop(instance);
    watcher.join().unwrap();
}

#[test]
fn a_chain_that_does_not_fit_together_is_refused_by_the_stage_that_sees_it() {
    let (first, last) = (stage(0..3, usize::MAX), stage(3..6, usize::MAX));
    let good = spec(&[first, last]);
    let with = |change: fn(&mut ChainSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        open(&spec).unwrap_err().to_string()
    };
    assert_eq!(
        with(|spec| spec.build = "another build".to_owned()),
        "stage 0: this stage runs this build, the coordinator another build: \
         install the same build on both"
    );
    assert_eq!(
        with(|spec| spec.model = "another".to_owned()),
        "stage 0: this stage holds sim, the chain is for another"
    );
    assert!(with(|spec| spec.params.context_tokens = 1).contains("the chain needs"));
    assert!(with(|spec| spec.hidden_size = 3).contains("hidden states are 2 wide here"));
    assert_eq!(
        with(|spec| spec.stages.truncate(1)),
        "stage 0: this stage has no head, it cannot be the last"
    );
    assert_eq!(
        with(|spec| spec.stages.reverse()),
        "stage 0: this stage has the head, it must be the last"
    );
    // None of these did any harm.
    let instance = open(&good).unwrap();
    finish(instance.submit(prompt(&[1, 2, 3], 3)).unwrap()).unwrap();
}

#[test]
fn garbage_on_a_stages_port_does_no_harm() {
    let address = stage(0..6, usize::MAX);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"BRGD",
        b"BRGD\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff",
        b"BRGD\x01\x00\x04\x00\x00\x00\x00\x00\x00\x00abcd",
    ] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(garbage).unwrap();
    }
    let instance = open(&spec(&[address])).unwrap();
    finish(instance.submit(prompt(&[1, 2, 3], 3)).unwrap()).unwrap();
}

#[test]
fn a_stage_that_is_not_there_is_named() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let error = open(&spec(&[nobody])).unwrap_err().to_string();
    assert!(error.contains(&nobody.to_string()), "{error}");
    let error = open(&spec(&[stage(0..3, 0), nobody]))
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("stage 0: "), "{error}");
    assert!(error.contains(&nobody.to_string()), "{error}");
}
