//! Where the layers of an architecture may be divided, as data.
//!
//! llama.cpp loads a stage as a model of its own, so what it derives from a layer's index or
//! from the kinds of layers must come out the same there.

use crate::model::{Attention, Model};

/// What holds for each stage of an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Any cut.
    Any,
    /// Stages start at multiples of this.
    Multiple(u32),
    /// A stage has at least one layer with a sliding window.
    Window,
    /// A stage has at least one layer of each kind that the model has.
    EachKind,
    /// Its stages would compute something else.
    Refused,
}

/// Rules by llama.cpp's name of the architecture; those absent take any cut.
const RULES: [(&str, Rule); 16] = [
    ("cohere2", Rule::Window),
    ("deepseek4", Rule::Refused),
    ("gemma3", Rule::Window),
    ("gemma4", Rule::Window),
    ("glm-dsa", Rule::Refused),
    ("gpt-oss", Rule::Window),
    ("kimi-k3", Rule::Refused),
    ("lfm2", Rule::EachKind),
    ("llama4", Rule::Multiple(4)),
    ("nemotron_h", Rule::EachKind),
    ("nemotron_h_moe", Rule::EachKind),
    ("olmo2", Rule::Window),
    ("qwen35", Rule::EachKind),
    ("qwen35moe", Rule::EachKind),
    ("qwen3next", Rule::EachKind),
    ("smollm3", Rule::Multiple(4)),
];

/// Counts of layers from which llama.cpp derives a size or scale, so that no stage may have
/// them: architecture, counts.
const REFUSED_COUNTS: [(&str, &[u32]); 3] = [
    ("deepseek2", &[26, 27]),
    ("gemma2", &[46]),
    ("gemma3", &[62]),
];

/// The rule of an architecture.
pub fn rule(architecture: &str) -> Rule {
    RULES
        .iter()
        .find(|(name, _)| *name == architecture)
        .map_or(Rule::Any, |(_, rule)| *rule)
}

/// The allowed stages of one model.
#[derive(Debug, Clone)]
pub(crate) struct Cuts {
    layers: u32,
    multiple: u32,
    refused_counts: &'static [u32],
    /// For each kind that a stage needs, how many there are before each layer.
    needed: Vec<Vec<u32>>,
}

impl Cuts {
    /// The rules of a model; an architecture that cannot be divided into stages has none, for
    /// llama.cpp's own distributed engine takes it as it is.
    pub(crate) fn of(model: &Model) -> Self {
        let layers = model.layers.len() as u32;
        let rule = rule(&model.architecture);
        let counts = |kind: usize| -> Vec<u32> {
            let mut sum = vec![0];
            let mut so_far = 0;
            for layer in &model.layers {
                so_far += u32::from(kind_of(layer.attention) == kind);
                sum.push(so_far);
            }
            sum
        };
        let needed = match rule {
            Rule::Window => vec![counts(1)],
            Rule::EachKind => (0..KINDS).map(counts).collect(),
            Rule::Any | Rule::Multiple(_) | Rule::Refused => Vec::new(),
        };
        let refused_counts = REFUSED_COUNTS
            .iter()
            .find(|(name, _)| *name == model.architecture)
            .map_or::<&[u32], _>(&[], |(_, counts)| counts);
        Self {
            layers,
            multiple: match rule {
                Rule::Multiple(of) => of,
                _ => 1,
            },
            // A whole model with such a count has it already.
            refused_counts: if refused_counts.contains(&layers) {
                &[]
            } else {
                refused_counts
            },
            needed: needed
                .into_iter()
                .filter(|sum| sum.last().is_some_and(|&all| all > 0))
                .collect(),
        }
    }

    /// Whether layers `start..end` may be a stage; all of them always may.
    pub(crate) fn allows(&self, start: u32, end: u32) -> bool {
        let has_all = |sum: &Vec<u32>| sum[end as usize] > sum[start as usize];
        start < end
            && (start == 0 && end == self.layers
                || start.is_multiple_of(self.multiple)
                    && (end == self.layers || end.is_multiple_of(self.multiple))
                    && !self.refused_counts.contains(&(end - start))
                    && self.needed.iter().all(has_all))
    }

    /// Whether any range may be a stage.
    pub(crate) fn free(&self) -> bool {
        self.multiple == 1 && self.refused_counts.is_empty() && self.needed.is_empty()
    }

    /// Whether a stage may end here and leave something that can still be a stage.
    pub(crate) fn leaves_rest(&self, end: u32) -> bool {
        end == self.layers
            || self
                .needed
                .iter()
                .all(|sum| sum[self.layers as usize] > sum[end as usize])
    }
}

/// Kinds that a stage may need: a feed-forward layer is not one of them.
const KINDS: usize = 4;

fn kind_of(attention: Attention) -> usize {
    match attention {
        Attention::Full { .. } => 0,
        Attention::Sliding { .. } => 1,
        Attention::Latent { .. } => 2,
        Attention::Recurrent { .. } => 3,
        Attention::None => 4,
    }
}
