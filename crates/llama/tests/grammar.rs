//! llama.cpp's grammar sampler on a small vocabulary.

use brigade_engine::{Constraint, Stage};
use brigade_gguf::testing::TinyModel;
use brigade_llama::{LlamaStage, Role, Setup, StageConfig, Vocabulary};
use brigade_wire::{StageParams, Token};

struct Bench {
    stage: LlamaStage,
    vocabulary: Vocabulary,
    _folder: tempfile::TempDir,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.gguf");
    TinyModel::llama(2).write(&path).expect("a model");
    let stage = LlamaStage::load(StageConfig {
        path: path.clone(),
        role: Role::Whole,
        params: StageParams {
            context_tokens: 64,
            sequences: 1,
            batch_tokens: 16,
            flash_attention: true,
            draft_tokens: 0,
        },
        threads: 1,
        rpc: Vec::new(),
        setup: Setup::Stage,
        devices: None,
    })
    .expect("the stage loads");
    Bench {
        stage,
        vocabulary: Vocabulary::load(&path).expect("the vocabulary loads"),
        _folder: folder,
    }
}

impl Bench {
    fn constraint(&self, grammar: &str) -> Box<dyn Constraint> {
        self.stage
            .grammars()
            .constraint(grammar)
            .expect("a grammar")
    }

    /// Tokens whose text is this.
    fn spelled(&self, text: &str) -> Token {
        (0..self.vocabulary.len() as Token)
            .find(|&token| self.vocabulary.piece(token, false) == text.as_bytes())
            .unwrap_or_else(|| panic!("no token is {text:?}"))
    }
}

#[test]
fn a_grammar_allows_what_matches_and_its_end() {
    let bench = bench();
    let [a, b] = ["a", "b"].map(|text| bench.spelled(text));
    let end = bench.vocabulary.end_of_generation()[0];
    let mut constraint = bench.constraint("root ::= \"a\" \"b\"");
    assert!(constraint.allows(a) && !constraint.allows(b) && !constraint.allows(end));
    assert!(!constraint.accept(b), "refused, and nothing happens");
    assert!(!constraint.accept(end), "llama.cpp would abort");
    assert!(!constraint.allows(Token::MAX));
    let start = constraint.fork();
    assert!(constraint.accept(a));
    assert!(constraint.allows(b) && start.allows(a));

    let mut logits = vec![1.0; bench.vocabulary.len()];
    constraint.mask(&mut logits);
    for (token, logit) in (0..).zip(&logits) {
        assert_eq!(
            *logit > f32::NEG_INFINITY,
            constraint.allows(token),
            "{token}"
        );
    }
    assert!(constraint.accept(b));
    assert!(constraint.allows(end) && !constraint.allows(a));
}

#[test]
fn what_is_no_grammar_is_refused() {
    let bench = bench();
    for grammar in [
        "",
        "  \n",
        "root ::=  missing",
        "toor ::= \"a\"",
        "root ::= root",
        "root ::= \"a\"{2001}",
        "root ::= \"a\0b\"",
        "\u{0}\u{1}",
    ] {
        assert!(
            bench.vocabulary.check_grammar(grammar).is_err(),
            "{grammar:?}"
        );
        assert!(
            bench.stage.grammars().constraint(grammar).is_err(),
            "{grammar:?}"
        );
    }
    bench
        .vocabulary
        .check_grammar("root ::= [a-z]+")
        .expect("a grammar");
}

#[test]
fn constraints_outlive_their_stage() {
    let bench = bench();
    let a = bench.spelled("a");
    let mut constraint = bench.constraint("root ::= [a-z]+");
    drop(bench);
    assert!(constraint.accept(a));
}
