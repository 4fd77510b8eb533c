//! Ranges of layers, and how a model is divided into them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::architecture::Architecture;
use crate::{GgufError, Header, TensorInfo};

/// A half-open range of layers: `start` is in it, `end` is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct Layers {
    /// The first layer.
    pub start: u32,
    /// The one after the last.
    pub end: u32,
}

impl Layers {
    /// `[start, end)`.
    pub fn new(start: u32, end: u32) -> Self {
        Self { start, end }
    }

    /// How many.
    pub fn count(self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    /// Whether a layer is among them.
    pub fn contains(self, layer: u32) -> bool {
        (self.start..self.end).contains(&layer)
    }

    /// Whether they are the start of a model.
    pub fn is_first(self) -> bool {
        self.start == 0
    }

    /// Whether they are the end of a model with `layer_count` layers.
    pub fn is_last(self, layer_count: u32) -> bool {
        self.end == layer_count
    }

    /// Whether they are none.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// How many they are.
    pub fn len(self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    /// Whether they are all layers of a model with `layer_count` of them.
    pub fn is_whole(self, layer_count: u32) -> bool {
        self.is_first() && self.is_last(layer_count)
    }

    /// Fails unless they are at least one layer of a model with `layer_count` of them.
    pub(crate) fn check(self, layer_count: u32) -> Result<(), GgufError> {
        if self.start < self.end && self.end <= layer_count {
            return Ok(());
        }
        Err(GgufError::BadRange {
            range: self,
            layers: layer_count,
        })
    }
}

impl std::fmt::Display for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl From<(u32, u32)> for Layers {
    fn from((start, end): (u32, u32)) -> Self {
        Self { start, end }
    }
}

impl From<Layers> for (u32, u32) {
    fn from(layers: Layers) -> Self {
        (layers.start, layers.end)
    }
}

impl From<Range<u32>> for Layers {
    fn from(range: Range<u32>) -> Self {
        Self {
            start: range.start,
            end: range.end,
        }
    }
}

/// The work at which stages are to be even. A decode step computes the head for each token, a chunk
/// of a prompt not at all, or for one token of many, so that what is best for one slows down the
/// other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Balance {
    /// Answers of many users.
    Decode,
    /// Prompts.
    Prompts,
    /// Between the two.
    #[default]
    Both,
}

impl Balance {
    /// By how much the head counts.
    fn head(self) -> f64 {
        match self {
            Self::Decode => 1.0,
            Self::Prompts => 0.0,
            Self::Both => 1.0 / 3.0,
        }
    }
}

/// Divides a model's layers into `stages` ranges of about the same work, with a head that takes
/// as long as `head_layers` layers where it is computed.
pub fn plan_even(
    layer_count: u32,
    head_layers: f64,
    stages: u32,
    balance: Balance,
) -> Result<Vec<Layers>, GgufError> {
    check_count(layer_count, stages)?;
    let head = head_layers.max(0.0) * balance.head();
    let share = (f64::from(layer_count) + head) / f64::from(stages);
    let mut plan = Vec::new();
    let mut start = 0;
    for stage in 1..=stages {
        let wanted = (share * f64::from(stage) - 1e-9).round() as u32;
        // At least one layer for this stage and for each that follows.
        let end = wanted.clamp(start + 1, layer_count - (stages - stage));
        plan.push(Layers::new(start, end));
        start = end;
    }
    Ok(plan)
}

/// How many of a model's layers take as long as its head, by the multiplications for a token.
pub fn head_layers(header: &Header) -> Result<f64, GgufError> {
    let layers = header.block_count()?;
    let architecture_value = |suffix| {
        let key = header.architecture_key(suffix).ok()?;
        header.get_u32(&key).filter(|&count| count > 0)
    };
    let experts = architecture_value("expert_count").map_or(1.0, f64::from);
    let used = architecture_value("expert_used_count").map_or(experts, f64::from);
    let elements = |tensor: &TensorInfo| tensor.dims().iter().product::<u64>() as f64;
    let in_blocks = header.tensors().iter().filter_map(|tensor| {
        let (_, kind) = tensor.block()?;
        let share = if kind.contains("_exps") {
            used / experts
        } else {
            1.0
        };
        Some(elements(tensor) * share)
    });
    let layer = in_blocks.sum::<f64>() / f64::from(layers.max(1));
    let head = header.tensor("output.weight");
    let head = head.or_else(|| header.tensor("token_embd.weight"));
    let head = head.map_or(0.0, elements);
    Ok(if layer > 0.0 { head / layer } else { 0.0 })
}

/// Divides `layer_count` layers before each of the layers `cuts`: 5 and 11 give
/// `0..5`, `5..11`, `11..`.
pub fn plan_cuts(layer_count: u32, cuts: &[u32]) -> Result<Vec<Layers>, GgufError> {
    let mut stages = Vec::new();
    let mut start = 0;
    for &cut in cuts {
        if cut == 0 || cut >= layer_count {
            return Err(GgufError::CutOutOfRange {
                cut,
                layers: layer_count,
            });
        }
        if cut <= start {
            return Err(GgufError::CutsNotAscending { before: start, cut });
        }
        stages.push(Layers::new(start, cut));
        start = cut;
    }
    check_count(layer_count, stages.len() as u32 + 1)?;
    stages.push(Layers::new(start, layer_count));
    Ok(stages)
}

/// Checks that `stages` are all layers of the model, each once and in order, and that its
/// architecture can be cut there. One stage that is the whole model is right for any
/// architecture, for nothing is cut then.
pub fn check_stages(header: &Header, stages: &[Layers]) -> Result<(), GgufError> {
    let layers = header.block_count()?;
    check_count(layers, stages.len() as u32)?;
    let mut expected = 0;
    for &range in stages {
        range.check(layers)?;
        if range.start != expected {
            return Err(GgufError::Gap {
                range,
                expected,
                layers,
            });
        }
        expected = range.end;
    }
    if expected != layers {
        return Err(GgufError::Gap {
            range: Layers::new(layers, layers),
            expected,
            layers,
        });
    }
    if let [_] = stages {
        return Ok(());
    }
    let architecture = Architecture::of(header)?;
    stages
        .iter()
        .try_for_each(|&range| architecture.check_range(layers, range))
}

fn check_count(layers: u32, stages: u32) -> Result<(), GgufError> {
    match stages {
        0 => Err(GgufError::NoStages),
        _ if stages > layers => Err(GgufError::TooManyStages { stages, layers }),
        _ => Ok(()),
    }
}
