//! A model cut into stages against the whole one, in this process: every logit, bit for bit,
//! while two sequences take turns, a slot is used again and a sequence is shared.

use std::fs::File;
use std::path::Path;

use brigade_engine::{Input, Stage, StageError};
use brigade_gguf::testing::TinyModel;
use brigade_gguf::{Embedding, Layers, Source, plan_cuts, prepare_stage};
use brigade_llama::{EmbeddingTable, LlamaStage, Role, Setup, StageConfig};
use brigade_wire::{KvOp, SeqId, Span, StageParams, Want};

const LAYERS: u32 = 7;

fn params() -> StageParams {
    StageParams {
        context_tokens: 256,
        sequences: 4,
        batch_tokens: 16,
        flash_attention: true,
        draft_tokens: 3,
    }
}

fn load(path: &Path, role: Role) -> LlamaStage {
    LlamaStage::load(StageConfig {
        path: path.to_owned(),
        role,
        params: params(),
        threads: 1,
        rpc: Vec::new(),
        setup: Setup::Stage,
        devices: None,
    })
    .expect("the stage loads")
}

/// Stages that a step goes through one after the other.
struct Chain(Vec<LlamaStage>);

impl Chain {
    fn whole(model: &Path) -> Self {
        Self(vec![load(model, Role::Whole)])
    }

    fn cut(model: &Path, cuts: &[u32], folder: &Path) -> Self {
        let source = Source::open(model).expect("a model");
        let stage = |layers: Layers| {
            let files = prepare_stage(&source, layers, folder, |_, _| {}).expect("stage files");
            let role = match &files.embedding {
                Some(path) => Role::First(embedding(path)),
                None if layers.is_last(LAYERS) => Role::Last,
                None => Role::Middle,
            };
            load(&files.model, role)
        };
        let ranges = plan_cuts(LAYERS, cuts).expect("cuts within the model");
        Self(ranges.into_iter().map(stage).collect())
    }

    fn apply(&mut self, op: KvOp) {
        for stage in &mut self.0 {
            stage.apply(op).expect("a change that every stage can make");
        }
    }

    /// Bits of the logits of every span.
    fn step(&mut self, spans: &[(u32, u32, &[u32])]) -> Vec<u32> {
        self.step_that_wants(Want::Token, spans)
    }

    fn step_that_wants(&mut self, want: Want, spans: &[(u32, u32, &[u32])]) -> Vec<u32> {
        let spans: Vec<Span> = spans
            .iter()
            .map(|&(seq, position, tokens)| Span {
                want,
                ..span(seq, position, tokens)
            })
            .collect();
        let tokens: Vec<u32> = spans.iter().flat_map(|s| s.tokens.clone()).collect();
        let mut rows = Vec::new();
        let mut output = Vec::new();
        for (index, stage) in self.0.iter_mut().enumerate() {
            let input = if index == 0 {
                Input::Tokens(&tokens)
            } else {
                Input::Hidden(&rows)
            };
            stage
                .forward(&spans, input, &mut output)
                .expect("a valid step");
            std::mem::swap(&mut rows, &mut output);
        }
        rows.iter().map(|value| value.to_bits()).collect()
    }
}

fn embedding(path: &Path) -> EmbeddingTable {
    let source = Source::open(path).expect("the embedding's file");
    let table = Embedding::of(source.model()).expect("an embedding");
    EmbeddingTable::new(
        File::open(path).expect("the embedding's file"),
        table.offset,
        table.rows as u32,
        table.width as usize,
        table.ggml_type.id(),
        table.scale,
    )
    .expect("a table that ggml can read")
}

fn span(seq: u32, position: u32, tokens: &[u32]) -> Span {
    Span {
        seq: SeqId(seq),
        position,
        tokens: tokens.to_vec(),
        want: Want::Token,
        sampling: None,
        prompt_tokens: 0,
    }
}

/// Prompts in chunks, decoding together, a hole between the sequences, a slot used again, a
/// sequence forgotten in part and one shared.
fn scenario(chain: &mut Chain) -> Vec<Vec<u32>> {
    let long: Vec<u32> = (0..30).map(|i| 3 + (i * 7) % 250).collect();
    let mut seen = vec![
        chain.step(&[(0, 0, &long[..16])]),
        chain.step(&[(1, 0, &long[20..29])]),
        chain.step(&[(0, 16, &long[16..])]),
    ];
    for position in 0..3 {
        seen.push(chain.step(&[(0, 30 + position, &[40]), (1, 9 + position, &[50])]));
    }
    chain.apply(KvOp::Remove {
        seq: SeqId(0),
        from: 0,
    });
    seen.push(chain.step(&[(2, 0, &long[5..12])]));
    seen.push(chain.step(&[(0, 0, &long[..11])]));
    // Sequences 0 and 2 with a hole between them, then all three.
    seen.push(chain.step(&[(0, 11, &[60]), (2, 7, &[61])]));
    seen.push(chain.step(&[(0, 12, &[62]), (1, 12, &[63]), (2, 8, &[64])]));
    chain.apply(KvOp::Remove {
        seq: SeqId(1),
        from: 9,
    });
    seen.push(chain.step(&[(1, 9, &[50])]));
    chain.apply(KvOp::Copy {
        from: SeqId(1),
        to: SeqId(3),
    });
    seen.push(chain.step(&[(1, 10, &[70]), (2, 9, &[71]), (3, 10, &[70])]));
    // Drafts of all four, of which one token was right.
    let drafts: Vec<(u32, u32, &[u32])> = vec![
        (0, 13, &[80, 81, 82, 83]),
        (1, 11, &[84, 85, 86, 87]),
        (2, 10, &[88, 89, 90, 91]),
        (3, 11, &[84, 85, 86, 87]),
    ];
    seen.push(chain.step_that_wants(Want::Verify, &drafts));
    for (seq, position, _) in drafts {
        chain.apply(KvOp::Remove {
            seq: SeqId(seq),
            from: position + 2,
        });
    }
    seen.push(chain.step(&[(0, 15, &[92]), (1, 13, &[93]), (2, 12, &[94])]));
    seen
}

fn check(model: &TinyModel, cuts: &[&[u32]]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    model.write(&path).expect("the model is written");
    let expected = scenario(&mut Chain::whole(&path));
    for cuts in cuts {
        let actual = scenario(&mut Chain::cut(&path, cuts, folder.path()));
        for (step, (expected, actual)) in expected.iter().zip(&actual).enumerate() {
            assert_eq!(expected, actual, "cuts {cuts:?}, step {step}");
        }
    }
}

#[test]
fn llama() {
    check(
        &TinyModel::llama(LAYERS),
        &[&[3], &[1, 4], &[1, 2, 3, 4, 5, 6]],
    );
}

#[test]
fn llama_untied() {
    check(&TinyModel::llama(LAYERS).untied(), &[&[2, 5]]);
}

#[test]
fn mixture_of_experts() {
    check(&TinyModel::llama_moe(LAYERS), &[&[3], &[1, 4]]);
}

#[test]
fn gemma3_off_the_period_of_its_window() {
    check(&TinyModel::gemma3(LAYERS), &[&[3], &[1, 4], &[5, 6]]);
}

#[test]
fn a_draft_is_verified_like_its_tokens_one_by_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    TinyModel::llama(LAYERS)
        .write(&path)
        .expect("the model is written");
    let mut chain = Chain::cut(&path, &[3], folder.path());
    for seq in 0..2 {
        chain.step(&[(seq, 0, &[5, 6, 7, 8])]);
    }
    let draft = [9, 10, 11, 12];
    let verified = chain.step_that_wants(Want::Verify, &[(0, 4, &draft)]);
    let mut one_by_one = Vec::new();
    for (position, token) in (4..).zip(draft) {
        one_by_one.extend(chain.step(&[(1, position, &[token])]));
    }
    // Rows of a larger batch may differ in their last bits.
    assert_eq!(verified.len(), one_by_one.len());
    for (a, b) in verified.iter().zip(&one_by_one) {
        let (a, b) = (f32::from_bits(*a), f32::from_bits(*b));
        assert!((a - b).abs() < 1e-3, "{a} and {b}");
    }
}

#[test]
fn a_copied_sequence_continues_like_its_original() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    TinyModel::llama(LAYERS)
        .write(&path)
        .expect("the model is written");
    let mut chain = Chain::cut(&path, &[3], folder.path());
    chain.step(&[(0, 0, &[5, 6, 7, 8])]);
    chain.apply(KvOp::Copy {
        from: SeqId(0),
        to: SeqId(1),
    });
    let original = chain.step(&[(0, 4, &[9])]);
    assert_eq!(original, chain.step(&[(1, 4, &[9])]));
    assert_ne!(original, chain.step(&[(1, 5, &[9])]));
}

#[test]
fn a_step_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    TinyModel::llama(LAYERS)
        .write(&path)
        .expect("the model is written");
    let mut stage = load(&path, Role::Whole);
    let mut output = Vec::new();
    let mut forward = |spans: &[Span]| {
        let tokens: Vec<u32> = spans.iter().flat_map(|s| s.tokens.clone()).collect();
        stage.forward(spans, Input::Tokens(&tokens), &mut output)
    };
    forward(&[span(0, 0, &[1, 2])]).expect("a valid step");
    assert!(matches!(
        forward(&[span(0, 5, &[3])]),
        Err(StageError::OutOfStep {
            seq: 0,
            actual: 2,
            expected: 5
        })
    ));
    let refused = [
        vec![],
        vec![span(0, 2, &[])],
        vec![span(9, 0, &[1])],
        vec![span(1, 0, &[1]), span(0, 2, &[1])],
        vec![span(0, 2, &[1]), span(1, 0, &[1, 2])],
        vec![span(0, 2, &[1; 17])],
        vec![Span {
            want: Want::Verify,
            ..span(0, 2, &[1; 5])
        }],
    ];
    for spans in refused {
        assert!(
            matches!(forward(&spans), Err(StageError::BadStep(_))),
            "{spans:?}"
        );
    }
    forward(&[span(0, 2, &[3])]).expect("nothing was changed by what was refused");
}
