//! The simulated stage must notice what a real one would get wrong.

#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

use brigade_engine::sim::{SimModel, SimStage};
use brigade_engine::{Input, Stage, StageError, apply_changes, kv_digest};
use brigade_wire::{KvOp, SeqId, Span, Step, Token, Want};
use proptest::prelude::*;

const MODEL: SimModel = SimModel {
    layers: 6,
    vocabulary: 10,
    seed: 3,
};

fn stages(cuts: &[u32]) -> Vec<SimStage> {
    cuts.windows(2)
        .map(|cut| SimStage::new(MODEL, cut[0]..cut[1], 3, 32))
        .collect()
}

/// Sends one span through the stages and returns the logits of its last token.
fn forward(
    stages: &mut [SimStage],
    seq: u32,
    position: usize,
    tokens: &[Token],
) -> Result<Vec<f32>, StageError> {
    let span = Span {
        seq: SeqId(seq),
        position: position as u32,
        tokens: tokens.to_vec(),
        want: Want::Token,
        sampling: None,
        prompt_tokens: 0,
    };
    let spans = [span];
    let mut output = Vec::new();
    for (index, stage) in stages.iter_mut().enumerate() {
        let input = std::mem::take(&mut output);
        let rows = match index {
            0 => Input::Tokens(tokens),
            _ => Input::Hidden(&input),
        };
        stage.forward(&spans, rows, &mut output)?;
    }
    Ok(output)
}

fn whole(tokens: &[Token]) -> Vec<f32> {
    forward(&mut stages(&[0, 6]), 0, 0, tokens).unwrap()
}

proptest! {
    #[test]
    fn cuts_and_chunks_do_not_matter(
        tokens in prop::collection::vec(0u32..10, 1..20),
        chunk in 1usize..20,
    ) {
        let expected = whole(&tokens);
        for cuts in [&[0, 6][..], &[0, 1, 6], &[0, 2, 3, 6], &[0, 1, 2, 3, 4, 5, 6]] {
            let mut stages = stages(cuts);
            let mut logits = Vec::new();
            let mut position = 0;
            for chunk in tokens.chunks(chunk) {
                logits = forward(&mut stages, 2, position, chunk).unwrap();
                position += chunk.len();
            }
            prop_assert_eq!(&logits, &expected);
        }
    }

    /// Logits depend on each token before them and on their order.
    #[test]
    fn every_token_matters(
        tokens in prop::collection::vec(0u32..10, 2..20),
        at in any::<prop::sample::Index>(),
    ) {
        let expected = whole(&tokens);
        let at = at.index(tokens.len() - 1);
        let mut changed = tokens.clone();
        changed[at] += 1;
        prop_assert_ne!(whole(&changed), expected.clone());
        let mut shorter = tokens.clone();
        shorter.remove(at);
        prop_assert_ne!(whole(&shorter), expected.clone());
        let mut swapped = tokens.clone();
        swapped.swap(at, at + 1);
        prop_assert_eq!(whole(&swapped) == expected, tokens[at] == tokens[at + 1]);
    }
}

#[test]
fn removed_and_copied_tokens() {
    let mut stages = stages(&[0, 2, 6]);
    forward(&mut stages, 0, 0, &[1, 2, 3, 4]).unwrap();
    for stage in &mut stages {
        let (from, to) = (SeqId(0), SeqId(1));
        stage.apply(KvOp::Copy { from, to }).unwrap();
        stage.apply(KvOp::Remove { seq: to, from: 2 }).unwrap();
        assert!(stage.apply(KvOp::Copy { from, to }).is_err());
        assert_eq!(stage.kv_tokens(), 6);
    }
    let logits = forward(&mut stages, 1, 2, &[9]).unwrap();
    assert_eq!(logits, whole(&[1, 2, 9]));
    let logits = forward(&mut stages, 0, 4, &[5]).unwrap();
    assert_eq!(logits, whole(&[1, 2, 3, 4, 5]));
}

#[test]
fn a_step_at_the_wrong_position_is_refused() {
    let mut stages = stages(&[0, 6]);
    forward(&mut stages, 0, 0, &[1, 2]).unwrap();
    let error = forward(&mut stages, 0, 3, &[1]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "sequence 0 has 2 tokens here, the step expects 3"
    );
    let error = forward(&mut stages, 0, 2, &[1; 31]).unwrap_err();
    assert_eq!(error.to_string(), "bad step: the context is full");
    let error = forward(&mut stages, 3, 0, &[1]).unwrap_err();
    assert_eq!(error.to_string(), "bad step: there is no sequence 3");
    stages[0].clear();
    assert!(forward(&mut stages, 0, 0, &[1]).is_ok());
}

#[test]
fn a_stage_whose_sequences_have_other_lengths_has_failed() {
    let mut stages = stages(&[0, 2, 6]);
    forward(&mut stages, 0, 0, &[1, 2]).unwrap();
    let step = Step {
        kv: vec![KvOp::Remove {
            seq: SeqId(0),
            from: 1,
        }],
        kv_digest: Some(kv_digest(&[1, 0, 0])),
        ..Step::default()
    };
    apply_changes(&mut stages[0], &step).unwrap();
    // This one has kept a sequence that nobody asks for.
    let (from, to) = (SeqId(0), SeqId(2));
    stages[1].apply(KvOp::Copy { from, to }).unwrap();
    let error = apply_changes(&mut stages[1], &step).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the KV cache here is not what the coordinator believes it is"),
        "{error}"
    );
    // The same tokens in other sequences are no better.
    assert_ne!(kv_digest(&[1, 0, 0]), kv_digest(&[0, 1, 0]));
}
