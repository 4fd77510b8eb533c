//! A layer range in a llama.cpp context.

mod batch;
mod capture;
mod context;

use std::ffi::CString;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::rc::Rc;

use brigade_engine::{Constraint, Grammars, Input, NoGrammars, Stage, StageError};
use brigade_wire::{KvOp, SeqId, Span, StageParams};
use llama_cpp_sys_2 as sys;

use batch::Batch;
use capture::Capture;
use context::{context_params, quiet_threadpool};

use crate::{
    EmbeddingTable, LlamaError, MemoryUse, device, grammar::Grammar, initialize, log, model::Model,
    rpc,
};

/// Where a stage stands in the chain.
#[derive(Debug)]
pub enum Role {
    /// The whole model from its original file: tokens in, logits out.
    Whole,
    /// Tokens in, hidden states out.
    First(EmbeddingTable),
    /// Hidden states in and out.
    Middle,
    /// Hidden states in, logits out.
    Last,
}

/// How llama.cpp's context is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// As a stage: a KV cache for each sequence, threads that sleep between steps.
    Stage,
    /// As llama.cpp's own programs do, to compare with: one KV cache for all sequences, threads
    /// that spin.
    Stock,
}

/// How a stage is loaded.
#[derive(Debug)]
pub struct StageConfig {
    /// The stage file, or the original one for [`Role::Whole`].
    pub path: PathBuf,
    /// Its place.
    pub role: Role,
    /// What all stages of the instance agree on.
    pub params: StageParams,
    /// Threads that compute.
    pub threads: u32,
    /// RPC servers that hold the layers instead of this machine's devices.
    pub rpc: Vec<rpc::Share>,
    /// [`Setup::Stage`], except for comparisons.
    pub setup: Setup,
    /// This machine's devices that hold the layers, by name (see [`devices`](crate::devices)); an
    /// empty list is the CPU alone. `None`: all GPUs, else the CPU.
    pub devices: Option<Vec<String>>,
}

/// A [`Stage`] that llama.cpp computes.
#[derive(Debug)]
pub struct LlamaStage {
    context: NonNull<sys::llama_context>,
    model: Rc<Model>,
    threadpool: *mut sys::ggml_threadpool,
    /// Written by the callback while `llama_decode` runs; null for a stage that gives logits.
    capture: *mut Capture,
    embedding: Option<EmbeddingTable>,
    takes_tokens: bool,
    params: StageParams,
    hidden_size: usize,
    vocabulary: Option<usize>,
    lengths: Vec<u32>,
    embedded: Vec<f32>,
    batch: Batch,
    memory: MemoryUse,
}

impl LlamaStage {
    /// Loads the file and reserves KV cache and compute buffers.
    pub fn load(config: StageConfig) -> Result<Self, LlamaError> {
        initialize();
        let StageConfig {
            path,
            role,
            params,
            threads,
            rpc,
            setup,
            devices,
        } = config;
        log::take_buffers();
        let model = Rc::new(match devices {
            _ if !rpc.is_empty() => {
                let devices = rpc::devices(&rpc)?;
                Model::load(&path, Some(devices), Some(&rpc::split(&rpc)))?
            }
            Some(names) => Model::load(&path, Some(device::find(&names)?), None)?,
            None => Model::load(&path, None, None)?,
        });

        let gives_logits = matches!(role, Role::Whole | Role::Last);
        let takes_tokens = matches!(role, Role::Whole);
        let embedding = match role {
            Role::First(table) => Some(table),
            _ => None,
        };
        // SAFETY: the model is alive.
        let (layers, hidden_size) = unsafe {
            (
                sys::llama_model_n_layer(model.as_ptr()),
                sys::llama_model_n_embd(model.as_ptr()) as usize,
            )
        };
        let capture = if gives_logits {
            std::ptr::null_mut()
        } else {
            let name = CString::new(format!("l_out-{}", layers - 1)).unwrap_or_default();
            Box::into_raw(Box::new(Capture {
                name,
                rows: Vec::new(),
                calls: 0,
            }))
        };
        let cells = params.context_tokens.saturating_mul(params.sequences);
        // SAFETY: the model is alive; `capture` is null or stays valid until `drop`, after the
        // context that uses it.
        let context = unsafe {
            let mut context_params =
                context_params(&params, cells, threads, gives_logits, capture.cast());
            context_params.kv_unified = setup == Setup::Stock;
            sys::llama_init_from_model(model.as_ptr(), context_params)
        };
        let Some(context) = NonNull::new(context) else {
            if !capture.is_null() {
                // SAFETY: no context exists, so nothing else refers to it.
                drop(unsafe { Box::from_raw(capture) });
            }
            return Err(LlamaError::Context {
                path,
                cells,
                reason: log::take_errors(),
            });
        };
        // SAFETY: the model is alive.
        let vocabulary =
            gives_logits.then(|| unsafe { sys::llama_vocab_n_tokens(model.vocab()) as usize });
        let stage = Self {
            context,
            model,
            threadpool: match setup {
                Setup::Stage => quiet_threadpool(context, threads),
                Setup::Stock => std::ptr::null_mut(),
            },
            capture,
            embedding,
            takes_tokens,
            lengths: vec![0; params.sequences as usize],
            params,
            hidden_size,
            vocabulary,
            embedded: Vec::new(),
            batch: Batch::default(),
            memory: log::take_buffers(),
        };
        match &stage.embedding {
            Some(table) if table.width() != hidden_size => Err(LlamaError::Mismatch(format!(
                "the token embedding is {} wide, the stage {hidden_size}",
                table.width()
            ))),
            _ => Ok(stage),
        }
    }

    /// What llama.cpp allocated for this stage.
    pub fn memory_use(&self) -> MemoryUse {
        self.memory
    }

    fn check(&self, spans: &[Span], input: Input<'_>) -> Result<(), StageError> {
        let bad = |reason: String| Err(StageError::BadStep(reason));
        let tokens: usize = spans.iter().map(|span| span.tokens.len()).sum();
        if tokens == 0 || tokens > self.params.batch_tokens as usize {
            return bad(format!(
                "{tokens} tokens where 1 to {} go",
                self.params.batch_tokens
            ));
        }
        let rows = match input {
            Input::Tokens(ids) if self.takes_tokens || self.embedding.is_some() => ids.len(),
            Input::Hidden(floats) if !self.takes_tokens && self.embedding.is_none() => {
                if floats.len() % self.hidden_size != 0 {
                    return bad(format!(
                        "{} floats are no rows of {}",
                        floats.len(),
                        self.hidden_size
                    ));
                }
                floats.len() / self.hidden_size
            }
            Input::Tokens(_) => return bad("tokens for a stage that takes hidden states".into()),
            Input::Hidden(_) => return bad("hidden states for a stage that takes tokens".into()),
        };
        if rows != tokens {
            return bad(format!("{rows} rows for {tokens} tokens"));
        }
        let mut previous = None;
        for span in spans {
            let SeqId(seq) = span.seq;
            if previous.is_some_and(|previous| seq <= previous) {
                return bad(format!("sequence {seq} is out of order"));
            }
            previous = Some(seq);
            if span.tokens.len() != spans[0].tokens.len() {
                return bad("spans of unequal length".into());
            }
            // llama.cpp aborts when it has no room for a row of logits.
            let draft = span.logits_rows().saturating_sub(1);
            if draft > self.params.draft_tokens as usize {
                return bad(format!(
                    "a draft of {draft} tokens where {} are the most",
                    self.params.draft_tokens
                ));
            }
            let Some(&length) = self.lengths.get(seq as usize) else {
                return bad(format!("there is no sequence {seq}"));
            };
            if length != span.position {
                return Err(StageError::OutOfStep {
                    seq,
                    actual: length,
                    expected: span.position,
                });
            }
            if length as usize + span.tokens.len() > self.params.context_tokens as usize {
                return bad(format!(
                    "sequence {seq} would be longer than the context of {}",
                    self.params.context_tokens
                ));
            }
        }
        Ok(())
    }

    /// One `llama_decode` for sequences with consecutive ids: with a KV cache for each sequence,
    /// llama.cpp puts only those into one micro-batch. Appends the result to `output`.
    fn decode(
        &mut self,
        spans: &[Span],
        hidden: Option<&[f32]>,
        output: &mut Vec<f32>,
    ) -> Result<(), StageError> {
        let gives_logits = self.vocabulary.is_some();
        let rows = self.batch.fill(spans, gives_logits);
        let batch = self.batch.as_raw(hidden);
        if !self.capture.is_null() {
            // SAFETY: valid until `drop`; llama.cpp uses it only inside `llama_decode`.
            let capture = unsafe { &mut *self.capture };
            capture.rows.clear();
            capture.calls = 0;
        }
        // SAFETY: the context is alive and used by this thread only; all arrays of the batch have
        // `rows` elements (`embd` rows × hidden_size, checked) and outlive the call.
        let status = unsafe { sys::llama_decode(self.context.as_ptr(), batch) };
        if status != 0 {
            let reason = match status {
                1 => "no room in the KV cache".to_owned(),
                status => format!("llama_decode failed ({status}): {}", log::take_errors()),
            };
            return Err(StageError::Engine(reason));
        }
        if gives_logits {
            self.append_logits(spans, output)?;
        } else {
            // SAFETY: `llama_decode` returned, so nothing else refers to it.
            let capture = unsafe { &*self.capture };
            if capture.calls != 1 || capture.rows.len() != rows * self.hidden_size {
                return Err(StageError::Engine(format!(
                    "captured {} floats in {} parts for {rows} rows of {}",
                    capture.rows.len(),
                    capture.calls,
                    self.hidden_size
                )));
            }
            output.extend_from_slice(&capture.rows);
        }
        for span in spans {
            self.lengths[span.seq.0 as usize] += span.tokens.len() as u32;
        }
        Ok(())
    }

    fn append_logits(&self, spans: &[Span], output: &mut Vec<f32>) -> Result<(), StageError> {
        let vocabulary = self.vocabulary.unwrap_or(0);
        let mut row = 0;
        for span in spans {
            row += span.tokens.len();
            for row in row - span.logits_rows()..row {
                // SAFETY: the row was flagged as an output; a non-null result points to
                // `vocabulary` floats that stay valid until the next `llama_decode`.
                let logits = unsafe {
                    let logits = sys::llama_get_logits_ith(self.context.as_ptr(), row as i32);
                    if logits.is_null() {
                        return Err(StageError::Engine("llama.cpp gave no logits".to_owned()));
                    }
                    std::slice::from_raw_parts(logits, vocabulary)
                };
                output.extend_from_slice(logits);
            }
        }
        Ok(())
    }
}

impl Stage for LlamaStage {
    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn vocabulary(&self) -> Option<usize> {
        self.vocabulary
    }

    fn apply(&mut self, op: KvOp) -> Result<(), StageError> {
        let sequence = |SeqId(seq): SeqId| {
            if seq < self.params.sequences {
                Ok(seq)
            } else {
                Err(StageError::BadStep(format!("there is no sequence {seq}")))
            }
        };
        // SAFETY: the context is alive, and so is its memory.
        let memory = unsafe { sys::llama_get_memory(self.context.as_ptr()) };
        match op {
            KvOp::Remove { seq, from } => {
                let seq = sequence(seq)?;
                let length = &mut self.lengths[seq as usize];
                if from < *length {
                    // SAFETY: the memory is alive, the sequence within its bounds.
                    let removed =
                        unsafe { sys::llama_memory_seq_rm(memory, seq as i32, from as i32, -1) };
                    if !removed {
                        return Err(StageError::Engine(format!(
                            "this model cannot forget part of a sequence (from {from} of {length})"
                        )));
                    }
                    *length = from;
                }
            }
            KvOp::Copy { from, to } => {
                let (from, to) = (sequence(from)?, sequence(to)?);
                if self.lengths[to as usize] != 0 {
                    return Err(StageError::BadStep(format!("sequence {to} is not empty")));
                }
                // SAFETY: the memory is alive, both sequences within its bounds.
                unsafe { sys::llama_memory_seq_cp(memory, from as i32, to as i32, -1, -1) };
                self.lengths[to as usize] = self.lengths[from as usize];
            }
        }
        Ok(())
    }

    fn forward(
        &mut self,
        spans: &[Span],
        input: Input<'_>,
        output: &mut Vec<f32>,
    ) -> Result<(), StageError> {
        self.check(spans, input)?;
        output.clear();
        let mut embedded = std::mem::take(&mut self.embedded);
        let hidden = match (input, &mut self.embedding) {
            (Input::Hidden(hidden), _) => Some(hidden),
            (Input::Tokens(tokens), Some(table)) => {
                embedded.clear();
                for &token in tokens {
                    table
                        .read(token, &mut embedded)
                        .map_err(|error| StageError::BadStep(error.to_string()))?;
                }
                Some(embedded.as_slice())
            }
            (Input::Tokens(_), None) => None,
        };
        let mut row = 0;
        for run in spans.chunk_by(|a, b| a.seq.0 + 1 == b.seq.0) {
            let rows: usize = run.iter().map(|span| span.tokens.len()).sum();
            let hidden =
                hidden.map(|all| &all[row * self.hidden_size..(row + rows) * self.hidden_size]);
            self.decode(run, hidden, output)?;
            row += rows;
        }
        self.embedded = embedded;
        Ok(())
    }

    fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    fn clear(&mut self) {
        // SAFETY: the context is alive, and so is its memory.
        unsafe {
            sys::llama_memory_clear(sys::llama_get_memory(self.context.as_ptr()), true);
        }
        self.lengths.fill(0);
    }

    fn grammars(&self) -> &dyn Grammars {
        self
    }
}

impl Grammars for LlamaStage {
    fn constraint(&self, grammar: &str) -> Result<Box<dyn Constraint>, StageError> {
        if self.vocabulary.is_none() {
            return NoGrammars.constraint(grammar);
        }
        let grammar = Grammar::parse(&self.model, grammar)
            .map_err(|error| StageError::Constraint(error.to_string()))?;
        Ok(Box::new(grammar))
    }
}

impl Drop for LlamaStage {
    fn drop(&mut self) {
        // SAFETY: each came from llama.cpp (or `Box::into_raw`) and is freed once, users first; the
        // model goes after the context that uses it.
        unsafe {
            sys::llama_free(self.context.as_ptr());
            if !self.threadpool.is_null() {
                device::free_threadpool(self.threadpool);
            }
            if !self.capture.is_null() {
                drop(Box::from_raw(self.capture));
            }
        }
    }
}
