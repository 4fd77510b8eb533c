//! The scheduler, on what it decides step by step.

use std::sync::Arc;

use brigade_engine::scheduler::{
    Event, FinishReason, ProtocolError, Request, RequestId, Scheduler, SchedulerConfig, Started,
    SubmitError,
};
use brigade_wire::{
    KvOp, MAX_GRAMMAR_BYTES, MAX_LOGIT_BIAS, MAX_TOP_LOGPROBS, Output, SamplingParams, SeqId, Step,
    StepId, StepResult, Token, Want,
};

fn config(stages: u32, sequences: u32) -> SchedulerConfig {
    SchedulerConfig {
        stages,
        sequences,
        context_tokens: 32,
        chunk_tokens: 4,
        waiting_limit: 2,
        keeps_prefixes: false,
        preempt_after_tokens: 0,
        draft_tokens: 0,
    }
}

fn request(id: u64, prompt_tokens: u32, max_tokens: u32) -> Request {
    Request {
        id: RequestId(id),
        user: 0,
        prompt: (100..100 + prompt_tokens).collect(),
        max_tokens,
        sampling: SamplingParams::default(),
        stop_tokens: Arc::new([0]),
        want_logits: false,
    }
}

/// A chain's answer: every sequence gets this token.
fn answer(step: &Step, token: Token) -> StepResult {
    let outputs = step
        .spans
        .iter()
        .filter(|span| span.want != Want::Nothing)
        .map(|span| Output {
            seq: span.seq,
            token,
            logprob: -1.0,
            ..Output::default()
        })
        .collect();
    StepResult {
        id: step.id,
        outputs,
        compute_us: Vec::new(),
    }
}

fn token(request: u64, token: Token) -> Event {
    Event::Token {
        request: RequestId(request),
        token,
        logprob: -1.0,
        logits_row: None,
        top: Vec::new(),
    }
}

fn finished(request: u64, reason: FinishReason) -> Event {
    Event::Finished {
        request: RequestId(request),
        reason,
    }
}

/// `(sequence, position, tokens)` of each span.
fn shape(step: &Step) -> Vec<(u32, u32, usize)> {
    step.spans
        .iter()
        .map(|span| (span.seq.0, span.position, span.tokens.len()))
        .collect()
}

#[test]
fn one_request_from_prompt_to_end() {
    let mut scheduler = Scheduler::new(config(1, 2));
    scheduler.submit(request(7, 6, 2)).unwrap();
    let first = scheduler.next_step(0).unwrap();
    assert_eq!(shape(&first), [(0, 0, 4)]);
    assert_eq!(first.spans[0].tokens, [100, 101, 102, 103]);
    assert_eq!(first.spans[0].want, Want::Nothing);
    assert_eq!(first.spans[0].prompt_tokens, 6);
    assert!(first.spans[0].sampling.is_some());
    let second = scheduler.next_step(0).unwrap();
    assert_eq!((second.id, shape(&second)), (StepId(1), vec![(0, 4, 2)]));
    assert_eq!(second.spans[0].want, Want::Token);
    assert!(second.spans[0].sampling.is_none());
    assert_eq!(scheduler.next_step(0), None);
    assert_eq!(scheduler.on_result(&answer(&first, 1), 0).unwrap(), []);
    assert_eq!(scheduler.next_step(0), None);
    assert_eq!(
        scheduler.on_result(&answer(&second, 1), 0).unwrap(),
        [token(7, 1)]
    );
    let third = scheduler.next_step(0).unwrap();
    assert_eq!(shape(&third), [(0, 6, 1)]);
    assert_eq!(third.spans[0].tokens, [1]);
    assert_eq!(
        scheduler.on_result(&answer(&third, 2), 0).unwrap(),
        [token(7, 2), finished(7, FinishReason::Length)]
    );
    let last = scheduler.next_step(0).unwrap();
    let removal = KvOp::Remove {
        seq: SeqId(0),
        from: 0,
    };
    assert_eq!((last.kv.as_slice(), shape(&last)), (&[removal][..], vec![]));
    assert_eq!(scheduler.on_result(&answer(&last, 0), 0).unwrap(), []);
    assert_eq!(scheduler.next_step(0), None);
    assert_eq!(scheduler.load().active, 0);
}

#[test]
fn a_stop_token_ends_the_answer_and_is_not_delivered() {
    let mut scheduler = Scheduler::new(config(1, 1));
    scheduler.submit(request(1, 2, 9)).unwrap();
    let step = scheduler.next_step(0).unwrap();
    assert_eq!(
        scheduler.on_result(&answer(&step, 0), 0).unwrap(),
        [finished(1, FinishReason::Stop)]
    );
}

#[test]
fn the_context_caps_the_answer() {
    // 31 prompt tokens leave one place: two tokens, of which the second needs none.
    for (prompt_tokens, expected) in [(32, 1), (31, 2), (30, 3)] {
        let mut scheduler = Scheduler::new(config(1, 1));
        scheduler.submit(request(1, prompt_tokens, 100)).unwrap();
        let mut events = Vec::new();
        while let Some(step) = scheduler.next_step(0) {
            assert!(shape(&step).iter().all(|s| s.1 as usize + s.2 <= 32));
            events.extend(scheduler.on_result(&answer(&step, 5), 0).unwrap());
        }
        assert_eq!(events.len(), expected + 1);
        assert_eq!(events.last(), Some(&finished(1, FinishReason::Length)));
    }
}

#[test]
fn decodes_are_divided_over_the_stages_and_alternate_with_prompts() {
    let mut scheduler = Scheduler::new(config(2, 5));
    for id in 0..4 {
        scheduler.submit(request(id, 1, 20)).unwrap();
    }
    let prompts: Vec<Step> = (0..3).map_while(|_| scheduler.next_step(0)).collect();
    assert_eq!(
        prompts.iter().map(|s| s.spans[0].seq.0).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(scheduler.next_step(0), None, "three steps are in flight");
    for step in &prompts {
        scheduler.on_result(&answer(step, 9), 0).unwrap();
    }
    scheduler.submit(request(4, 12, 20)).unwrap();
    // Three sequences decode, so a step takes two; the last step was a prompt's.
    let steps: Vec<Step> = (0..3).map_while(|_| scheduler.next_step(0)).collect();
    let shapes: Vec<_> = steps.iter().map(shape).collect();
    assert_eq!(
        shapes,
        [vec![(0, 1, 1), (1, 1, 1)], vec![(3, 0, 1)], vec![(2, 1, 1)]]
    );
    scheduler.on_result(&answer(&steps[0], 9), 0).unwrap();
    // Until chunks were measured, only one of them is in flight beside decoding sequences.
    assert_eq!(
        shape(&scheduler.next_step(0).unwrap()),
        [(0, 2, 1), (1, 2, 1)]
    );
    assert_eq!(scheduler.next_step(0), None);
    scheduler.on_result(&answer(&steps[1], 9), 0).unwrap();
    assert_eq!(shape(&scheduler.next_step(0).unwrap()), [(4, 0, 4)]);
}

#[test]
fn a_cancelled_request_makes_room_at_once() {
    let mut scheduler = Scheduler::new(config(2, 1));
    scheduler.submit(request(1, 8, 20)).unwrap();
    scheduler.submit(request(2, 1, 20)).unwrap();
    let old = [
        scheduler.next_step(0).unwrap(),
        scheduler.next_step(0).unwrap(),
    ];
    assert!(scheduler.cancel(RequestId(1)));
    assert!(!scheduler.cancel(RequestId(1)));
    // The same name again, while steps of the old one are on their way.
    scheduler.submit(request(1, 1, 20)).unwrap();
    let new = scheduler.next_step(0).unwrap();
    let removal = KvOp::Remove {
        seq: SeqId(0),
        from: 0,
    };
    assert_eq!(
        (new.kv.as_slice(), shape(&new)),
        (&[removal][..], vec![(0, 0, 1)])
    );
    for step in &old {
        assert_eq!(scheduler.on_result(&answer(step, 5), 0).unwrap(), []);
    }
    assert_eq!(
        scheduler.on_result(&answer(&new, 6), 0).unwrap(),
        [token(2, 6)]
    );
    assert!(scheduler.cancel(RequestId(1)), "it was waiting");
    assert_eq!(scheduler.load().waiting, 0);
}

#[test]
fn a_request_that_never_started_leaves_nothing_to_remove() {
    let mut scheduler = Scheduler::new(config(1, 1));
    scheduler.submit(request(1, 8, 20)).unwrap();
    assert!(scheduler.cancel(RequestId(1)));
    assert_eq!(scheduler.next_step(0), None);
}

#[test]
fn logits_rows_are_counted_over_all_that_want_them() {
    let mut scheduler = Scheduler::new(config(1, 4));
    for id in 0..4 {
        let want_logits = id != 1;
        let request = Request {
            want_logits,
            ..request(id, 1, 9)
        };
        scheduler.submit(request).unwrap();
    }
    loop {
        let step = scheduler.next_step(0).unwrap();
        let is_full = step.spans.len() == 4;
        if is_full {
            // Row 0 belongs to a request that is cancelled while it is on its way.
            scheduler.cancel(RequestId(0));
        }
        let events = scheduler.on_result(&answer(&step, 5), 0).unwrap();
        if is_full {
            let rows = events.iter().map(|event| match event {
                Event::Token {
                    request,
                    logits_row,
                    ..
                } => (request.0, *logits_row),
                other => unreachable!("the limit is 9 tokens: {other:?}"),
            });
            assert_eq!(
                rows.collect::<Vec<_>>(),
                [(1, None), (2, Some(1)), (3, Some(2))]
            );
            return;
        }
    }
}

#[test]
fn bad_requests_are_refused_with_a_reason() {
    let mut scheduler = Scheduler::new(config(1, 1));
    let refuse = |scheduler: &mut Scheduler, request| scheduler.submit(request).unwrap_err();
    let error = refuse(&mut scheduler, request(1, 0, 1));
    assert_eq!(error, SubmitError::EmptyPrompt);
    let error = refuse(&mut scheduler, request(1, 33, 1));
    assert_eq!(
        error.to_string(),
        "the prompt has 33 tokens, the context holds 32: \
         shorten the prompt or load the model with a larger context"
    );
    let error = refuse(&mut scheduler, request(1, 1, 0));
    assert_eq!(error, SubmitError::NoTokens);
    let mut hot = request(1, 1, 1);
    hot.sampling.top_p = f32::NAN;
    assert_eq!(
        refuse(&mut scheduler, hot).to_string(),
        "top_p is NaN, it must be from 0 to 1"
    );
    // One sequence and two that wait.
    for id in 1..=3 {
        scheduler.submit(request(id, 1, 1)).unwrap();
    }
    let error = refuse(&mut scheduler, request(3, 1, 1));
    assert_eq!(error, SubmitError::Duplicate(RequestId(3)));
    let error = refuse(&mut scheduler, request(4, 1, 1));
    assert_eq!(error, SubmitError::QueueFull { waiting: 2 });
}

#[test]
fn answers_that_were_not_asked_for_are_refused() {
    let mut scheduler = Scheduler::new(config(1, 1));
    let stray = StepResult {
        id: StepId(3),
        ..StepResult::default()
    };
    let error = scheduler.on_result(&stray, 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the chain answered step 3, expected nothing"
    );
    scheduler.submit(request(1, 1, 5)).unwrap();
    let step = scheduler.next_step(0).unwrap();
    let error = scheduler.on_result(&stray, 0).unwrap_err();
    assert_eq!(error.to_string(), "the chain answered step 3, expected 0");
    let mut wrong = answer(&step, 1);
    wrong.outputs[0].seq = SeqId(9);
    let error = scheduler.on_result(&wrong, 0).unwrap_err();
    assert_eq!(
        error,
        ProtocolError::UnexpectedOutputs {
            step: 0,
            actual: vec![9],
            expected: vec![0]
        }
    );
    wrong.outputs.clear();
    assert!(scheduler.on_result(&wrong, 0).is_err());
    // Nothing was lost by the refusals.
    assert_eq!(
        scheduler.on_result(&answer(&step, 1), 0).unwrap(),
        [token(1, 1)]
    );
}

#[test]
fn a_broken_chain_gives_back_every_request() {
    let mut scheduler = Scheduler::new(config(2, 2));
    for id in [5, 3, 4, 1] {
        scheduler.submit(request(id, 6, 5)).unwrap();
    }
    scheduler.next_step(0).unwrap();
    scheduler.next_step(0).unwrap();
    assert_eq!(scheduler.fail_all(), [5, 3, 4, 1].map(RequestId));
    assert_eq!(scheduler.next_step(0), None);
    scheduler.submit(request(3, 1, 1)).unwrap();
    let step = scheduler.next_step(0).unwrap();
    assert_eq!((step.id, step.kv.len()), (StepId(0), 0));
}

#[test]
fn a_fault_ends_its_own_request_alone() {
    let mut scheduler = Scheduler::new(config(1, 2));
    scheduler.submit(request(1, 2, 9)).unwrap();
    scheduler.submit(request(2, 2, 9)).unwrap();
    let first = scheduler.next_step(0).unwrap();
    let started = |id| Started {
        request: RequestId(id),
        cached_tokens: 0,
    };
    assert_eq!(scheduler.take_started(), [started(1)]);
    assert!(scheduler.take_started().is_empty());
    let second = scheduler.next_step(0).unwrap();
    let mut broken = answer(&first, 5);
    broken.outputs[0].fault = Some("no way on".to_owned());
    assert_eq!(
        scheduler.on_result(&broken, 0).unwrap(),
        [Event::Failed {
            request: RequestId(1),
            reason: "no way on".to_owned()
        }]
    );
    assert_eq!(
        scheduler.on_result(&answer(&second, 5), 0).unwrap(),
        [token(2, 5)]
    );
    let next = scheduler.next_step(0).unwrap();
    assert_eq!(
        next.kv,
        [KvOp::Remove {
            seq: SeqId(0),
            from: 0
        }]
    );
    assert_eq!(shape(&next), [(1, 2, 1)]);
}

#[test]
fn more_than_a_frame_holds_is_refused() {
    let mut scheduler = Scheduler::new(config(1, 2));
    for sampling in [
        SamplingParams {
            grammar: Some("x".repeat(MAX_GRAMMAR_BYTES + 1)),
            ..SamplingParams::default()
        },
        SamplingParams {
            logit_bias: vec![(1, 1.0); MAX_LOGIT_BIAS + 1],
            ..SamplingParams::default()
        },
        SamplingParams {
            top_logprobs: MAX_TOP_LOGPROBS + 1,
            ..SamplingParams::default()
        },
    ] {
        let refused = Request {
            sampling,
            ..request(1, 2, 2)
        };
        assert_eq!(scheduler.submit(refused), Err(SubmitError::TooLarge));
    }
}
