//! The chain of simulated stages.

use std::collections::VecDeque;

use brigade_wire::{Step, StepResult};

use super::{SimModel, SimStage, mix};
use crate::sampling::SequenceSamplers;
use crate::{Input, NoGrammars, Stage, StageError, apply_changes};

/// How long a stage takes for a step of `n` tokens: `step_us + max(weights_us, n · token_us)`.
///
/// A stage that is bound by reading its weights has a large `weights_us`, one that is bound by
/// computing none.
#[derive(Debug, Default, Clone, Copy)]
pub struct SimSpeed {
    /// Whatever the step holds, in microseconds.
    pub step_us: u64,
    /// Reading the weights, in microseconds.
    pub weights_us: u64,
    /// Computing one token, in microseconds.
    pub token_us: u64,
}

impl SimSpeed {
    /// The time for a step of so many tokens, in microseconds.
    pub fn time_us(self, tokens: u64) -> u64 {
        self.step_us + self.weights_us.max(tokens * self.token_us)
    }
}

/// How long things take in a [`SimChain`], in virtual microseconds.
#[derive(Debug, Default, Clone)]
pub struct SimTiming {
    /// Every stage's speed.
    pub stages: Vec<SimSpeed>,
    /// Latency of each link; there is one more than stages.
    pub link_us: u64,
    /// Up to this much is added to a frame's latency, by the seed; frames keep their order.
    pub link_jitter_us: u64,
    /// Up to this much is added to each stage's time, by the seed.
    pub stage_jitter_us: u64,
}

impl SimTiming {
    /// Stages of one speed.
    pub fn even(stages: usize, speed: SimSpeed, link_us: u64) -> Self {
        Self {
            stages: vec![speed; stages],
            link_us,
            ..Self::default()
        }
    }

    /// One pass of a step of so many tokens through an idle chain, without jitter.
    pub fn pass_us(&self, tokens: u64) -> u64 {
        let links = self.link_us * (self.stages.len() as u64 + 1);
        let stages = self.stages.iter().map(|stage| stage.time_us(tokens));
        links + stages.sum::<u64>()
    }
}

/// A chain of simulated stages, with the ring of ordered links between them.
#[derive(Debug)]
pub struct SimChain {
    stages: Vec<SimStage>,
    samplers: SequenceSamplers,
    timing: SimTiming,
    seed: u64,
    now_us: u64,
    /// When each stage has done all that was sent.
    free_us: Vec<u64>,
    /// When the last frame on each link arrives.
    arrived_us: Vec<u64>,
    results: VecDeque<(u64, StepResult, Vec<f32>)>,
}

impl SimChain {
    /// Cuts a model into nearly equal ranges, one for each stage of `timing`; each needs a layer.
    pub fn new(model: SimModel, sequences: u32, context_tokens: u32, timing: SimTiming) -> Self {
        let stages = timing.stages.len() as u32;
        let cut = |index: u32| model.layers * index / stages;
        Self {
            stages: (0..stages)
                .map(|i| SimStage::new(model, cut(i)..cut(i + 1), sequences, context_tokens))
                .collect(),
            samplers: SequenceSamplers::new(),
            free_us: vec![0; timing.stages.len()],
            arrived_us: vec![0; timing.stages.len() + 1],
            timing,
            seed: model.seed,
            now_us: 0,
            results: VecDeque::new(),
        }
    }

    /// The virtual time.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The stages.
    pub fn stages(&self) -> &[SimStage] {
        &self.stages
    }

    /// How long things take.
    pub fn timing(&self) -> &SimTiming {
        &self.timing
    }

    /// Sends a step. Its work is done here and now, since nothing overtakes on a ring; its
    /// result comes when the virtual time has come.
    pub fn send(&mut self, step: &Step) -> Result<(), StageError> {
        let mut tokens = Vec::with_capacity(step.token_count());
        for span in &step.spans {
            tokens.extend_from_slice(&span.tokens);
        }
        let mut compute_us = Vec::with_capacity(self.stages.len());
        let mut at = self.deliver(0, self.now_us, step);
        let (mut input, mut output) = (Vec::new(), Vec::new());
        for index in 0..self.stages.len() {
            let stage = &mut self.stages[index];
            apply_changes(stage, step)?;
            std::mem::swap(&mut input, &mut output);
            let rows = match index {
                0 => Input::Tokens(&tokens),
                _ => Input::Hidden(&input),
            };
            let mut work = 0;
            if !step.spans.is_empty() {
                stage.forward(&step.spans, rows, &mut output)?;
                let jitter =
                    mix(self.seed ^ step.id.0, index as u64) % (self.timing.stage_jitter_us + 1);
                work = self.timing.stages[index].time_us(tokens.len() as u64) + jitter;
            }
            compute_us.push(work as u32);
            self.free_us[index] = at.max(self.free_us[index]) + work;
            at = self.deliver(index + 1, self.free_us[index], step);
        }
        let vocabulary = self.stages.last().and_then(Stage::vocabulary).unwrap_or(1);
        let mut returned = Vec::new();
        let mut result =
            self.samplers
                .answer(step, &output, vocabulary, &NoGrammars, &mut returned)?;
        result.compute_us = compute_us;
        self.results.push_back((at, result, returned));
        Ok(())
    }

    /// When a frame that goes onto a link now is at its other end.
    fn deliver(&mut self, link: usize, sent_us: u64, step: &Step) -> u64 {
        let jitter = mix(self.seed ^ !step.id.0, link as u64) % (self.timing.link_jitter_us + 1);
        let at = sent_us + self.timing.link_us + jitter;
        self.arrived_us[link] = at.max(self.arrived_us[link]);
        self.arrived_us[link]
    }

    /// When the next result arrives.
    pub fn next_result_us(&self) -> Option<u64> {
        self.results.front().map(|(at, ..)| *at)
    }

    /// The next result with the logits that were asked for; the time moves to its arrival.
    pub fn receive(&mut self) -> Option<(StepResult, Vec<f32>)> {
        let (at, result, logits) = self.results.pop_front()?;
        self.advance_to(at);
        Some((result, logits))
    }

    /// Lets time pass.
    pub fn advance_to(&mut self, at_us: u64) {
        self.now_us = self.now_us.max(at_us);
    }
}
