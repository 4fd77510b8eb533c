//! Ranges of layers, and how a model is divided into them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::architecture::Architecture;
use crate::{GgufError, Header};

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

/// Divides `layer_count` layers into `stages` ranges that differ by at most one layer; the
/// shorter ones come last, because the last stage has the head to compute as well.
pub fn plan_even(layer_count: u32, stages: u32) -> Result<Vec<Layers>, GgufError> {
    check_count(layer_count, stages)?;
    let (base, longer) = (layer_count / stages, layer_count % stages);
    let start = |stage: u32| stage * base + stage.min(longer);
    Ok((0..stages)
        .map(|stage| Layers::new(start(stage), start(stage + 1)))
        .collect())
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
