//! The vocabulary in a process of its own: text comes from strangers, and llama.cpp may abort
//! on it. Turning tokens back into text needs no process: the child hands over all pieces once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use brigade_gguf::Lease;
use brigade_wire::Token;
use serde::{Deserialize, Serialize};

use crate::{NodeError, child};

/// How long the process may take for the vocabulary, a text or a grammar. Megabytes take seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the child is told.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Load the vocabulary of this file; once, first.
    Load(PathBuf),
    /// Tokenize a text.
    Tokenize(Text),
    /// Try a grammar.
    CheckGrammar(String),
}

/// A text to tokenize.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Text {
    /// The text.
    pub text: String,
    /// Add the tokens that the model expects around a text. A chat template brings its own.
    pub add_special: bool,
    /// Read the text of control tokens as these tokens.
    pub parse_special: bool,
}

/// What the child reports.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// Answer to [`Order::Load`].
    Loaded(VocabularyFacts),
    /// Answer to [`Order::Tokenize`].
    Tokens(Vec<Token>),
    /// Answer to [`Order::CheckGrammar`].
    GrammarWorks,
    /// It could not be done.
    Failed(String),
}

/// The vocabulary, as far as it is needed outside the child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VocabularyFacts {
    /// The bytes that each token stands for in running text; none for control tokens.
    pub pieces: Vec<Vec<u8>>,
    /// Bytes of the longest text that one token can stand for, control tokens included.
    pub longest_piece: usize,
    /// The text of the token that begins a text; empty if there is none.
    pub bos: String,
    /// The text of the token that ends one; empty if there is none.
    pub eos: String,
    /// Tokens after which the model has nothing more to say.
    pub end_of_generation: Vec<Token>,
    /// Control tokens with their text, which [`pieces`](Self::pieces) lacks, ascending.
    pub control: Vec<(Token, String)>,
}

impl VocabularyFacts {
    /// What a token stands for, the text of control tokens included.
    pub fn text(&self, token: Token) -> &[u8] {
        let piece = self
            .pieces
            .get(token as usize)
            .map_or(&[][..], Vec::as_slice);
        match self
            .control
            .binary_search_by_key(&token, |(token, _)| *token)
        {
            Ok(index) if piece.is_empty() => self.control[index].1.as_bytes(),
            _ => piece,
        }
    }
}

/// The tokens of a text; none for a grammar.
type Answer = Result<Vec<Token>, NodeError>;

/// What a child is given that it may die of.
#[derive(Debug)]
enum Task {
    Text(Text),
    Grammar(String),
}

impl Task {
    fn what(&self) -> &'static str {
        match self {
            Self::Text(_) => "the text",
            Self::Grammar(_) => "the grammar",
        }
    }
}

/// A tokenizer whose process is started again when it dies. Clones share it.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    requests: mpsc::Sender<(Task, mpsc::Sender<Answer>)>,
    facts: Arc<VocabularyFacts>,
}

impl Tokenizer {
    /// Starts the process and waits for the vocabulary.
    pub fn start(model: &Path) -> Result<Self, NodeError> {
        let model = model.to_owned();
        let (ready, started) = mpsc::channel();
        let (requests, queue) = mpsc::channel::<(Task, mpsc::Sender<Answer>)>();
        thread::spawn(move || {
            // For the next process. Where there is no file, the first one says so.
            let _lease = Lease::of([model.as_path()]);
            let mut process = match Process::start(&model) {
                Ok((process, facts)) => {
                    let _ = ready.send(Ok(facts));
                    Some(process)
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            while let Ok((task, answer)) = queue.recv() {
                let _ = answer.send(work(&model, &mut process, &task));
            }
        });
        let facts = started
            .recv()
            .unwrap_or_else(|_| Err(NodeError::Tokenize("the thread ended".into())))?;
        Ok(Self {
            requests,
            facts: Arc::new(facts),
        })
    }

    /// The vocabulary.
    pub fn facts(&self) -> &Arc<VocabularyFacts> {
        &self.facts
    }

    /// The fewest tokens that this text can be, without looking at it. A text that cannot fit
    /// needs no tokenizing, which takes seconds for megabytes.
    pub fn fewest_tokens(&self, text: &str) -> usize {
        text.len().div_ceil(self.facts.longest_piece.max(1))
    }

    /// Turns text into tokens; blocks.
    pub fn tokenize(&self, text: Text) -> Result<Vec<Token>, NodeError> {
        self.ask(Task::Text(text))
    }

    /// Tries a grammar (llama.cpp's notation) where it can do no harm; blocks.
    ///
    /// Fails if it is none, if no token begins it, or if it ends the process.
    pub fn check_grammar(&self, grammar: String) -> Result<(), NodeError> {
        self.ask(Task::Grammar(grammar)).map(drop)
    }

    fn ask(&self, task: Task) -> Answer {
        let gone = || NodeError::Tokenize("the tokenizer has stopped".to_owned());
        let (sender, answer) = mpsc::channel();
        self.requests.send((task, sender)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

/// Does a task, and starts the process where there is none. A task is blamed for the end of the
/// process only when it ends the next one too: the first may have died of something else.
fn work(model: &Path, process: &mut Option<Process>, task: &Task) -> Answer {
    let mut ending = String::new();
    for _ in 0..2 {
        let running = match process {
            Some(running) => running,
            None => process.insert(Process::start(model)?.0),
        };
        match running.work(task) {
            Err(NodeError::ChildGone { how, .. }) => {
                tracing::warn!(%how, "the tokenizer died");
                *process = None;
                ending = how;
            }
            answer => return answer,
        }
    }
    Err(NodeError::Tokenize(format!(
        "{} ended the tokenizer ({ending})",
        task.what()
    )))
}

#[derive(Debug)]
struct Process {
    child: child::ChildProcess,
    reports: child::Reports,
}

impl Process {
    fn start(model: &Path) -> Result<(Self, VocabularyFacts), NodeError> {
        let (mut child, mut reports) = child::spawn("tokenizer", "the tokenizer")?;
        child.order(&Order::Load(model.to_owned()))?;
        match hear(&mut child, &mut reports)? {
            Some(Report::Loaded(facts)) => Ok((Self { child, reports }, facts)),
            Some(Report::Failed(reason)) => Err(NodeError::Refused {
                name: "the tokenizer".to_owned(),
                reason,
            }),
            Some(_) => Err(unexpected()),
            None => Err(child.gone()),
        }
    }

    fn work(&mut self, task: &Task) -> Answer {
        self.child.order(&match task {
            Task::Text(text) => Order::Tokenize(text.clone()),
            Task::Grammar(grammar) => Order::CheckGrammar(grammar.clone()),
        })?;
        match (hear(&mut self.child, &mut self.reports)?, task) {
            (Some(Report::Tokens(tokens)), Task::Text(_)) => Ok(tokens),
            (Some(Report::GrammarWorks), Task::Grammar(_)) => Ok(Vec::new()),
            (Some(Report::Failed(reason)), _) => Err(NodeError::Tokenize(reason)),
            (Some(_), _) => Err(unexpected()),
            (None, _) => Err(self.child.gone()),
        }
    }
}

/// What the process says next; one that says nothing is killed.
fn hear(
    child: &mut child::ChildProcess,
    reports: &mut child::Reports,
) -> Result<Option<Report>, NodeError> {
    if reports.wait(PATIENCE) {
        reports.read()
    } else {
        Err(child.hangs(PATIENCE))
    }
}

fn unexpected() -> NodeError {
    NodeError::Protocol {
        name: "the tokenizer".to_owned(),
        reason: "an answer to another question".to_owned(),
    }
}
