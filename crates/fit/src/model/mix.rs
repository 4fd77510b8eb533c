//! Bytes of a model's weights in a quantization.
//!
//! A quantization is a mix: which type each tensor has. llama.cpp chooses by the tensor's role,
//! the layer and the model's shape (`llama_tensor_get_type_impl` in `src/llama-quant.cpp`); the
//! rules stand in `catalog/quantizations.toml`, what holds for all of them here.

use brigade_gguf::GgmlType;
use serde::Deserialize;

use super::config::Facts;
use super::shape::{Role, Tensor};
use super::{Exactness, Format, LayerBytes, Quantization, Weights};

mod parts;
mod table;
#[cfg(test)]
mod tests;

pub use parts::Parts;
use parts::Traits;
pub use table::{builtin, parse};

/// A quantization's rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// Its name, such as `Q4_K_M`.
    pub name: String,
    /// Which runtimes read it.
    pub format: Format,
    /// Whether people serve models with it.
    pub production: bool,
    /// Whether it is for mixtures of experts only.
    pub experts_only: bool,
    /// The type of matrices that no rule names.
    pub base: Cell,
    /// The type of norms, biases and routers.
    pub float: Cell,
    /// The type of the head, and of an embedding that is the head.
    pub head: Cell,
    /// The type of an embedding that is not the head.
    pub embedding: Cell,
    /// The first that holds for a tensor decides.
    pub rules: Vec<Rule>,
    /// Where the rules come from.
    pub source: String,
    /// When they were read.
    pub date: String,
}

/// A tensor type: blocks of elements and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Elements of a block.
    pub elements: u64,
    /// Bytes of a block.
    pub bytes: u64,
    /// ggml's type, where it is one.
    pub ggml: Option<GgmlType>,
}

/// A rule: these tensors, in these layers, of such models, have this type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    tensor: Class,
    layers: Layers,
    when: When,
    cell: Cell,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Class {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values, and fused queries, keys and values, which llama.cpp treats as them.
    Value,
    /// Attention's output.
    Output,
    /// Feed-forward, gate and up, with routed experts.
    GateUp,
    /// Feed-forward, down, with routed experts.
    Down,
    /// All routed experts.
    Experts,
    /// Everything that attention or recurrence needs.
    Attention,
}

/// In which layers a rule holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Layers {
    /// In all.
    #[default]
    All,
    /// In the first and last eighth and every third between: llama.cpp's `use_more_bits`.
    More,
    /// In the first eighth.
    FirstEighth,
    /// In the first sixteenth.
    FirstSixteenth,
    /// In all but the first and last eighth.
    Middle,
    /// In the first two.
    FirstTwo,
    /// In the first four.
    FirstFour,
}

/// For which models a rule holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum When {
    /// For all.
    #[default]
    Always,
    /// At least four query heads share a key head.
    FourQueries,
    /// The same, or at least four experts.
    FourQueriesOrExperts,
}

/// A tensor's place: its layer of all layers, or its turn of all tensors of its kind.
#[derive(Clone, Copy)]
struct Place {
    index: u64,
    of: u64,
}

/// A layer's tensors, and which rules hold for them: layers of one case have the same bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Case {
    kind: usize,
    /// Rules that hold at the layer's place of all layers.
    place: u64,
    /// Rules that hold for its values, which are counted for themselves.
    turn: u64,
}

impl Layers {
    /// After llama.cpp; integer division throughout.
    fn hold(self, place: Place) -> bool {
        let Place { index, of } = place;
        match self {
            Self::All => true,
            Self::More => index < of / 8 || index >= 7 * of / 8 || (index - of / 8) % 3 == 2,
            Self::FirstEighth => index < of / 8,
            Self::FirstSixteenth => index < of / 16,
            Self::Middle => index >= of / 8 && index < 7 * of / 8,
            Self::FirstTwo => index < 2,
            Self::FirstFour => index < 4,
        }
    }
}

impl When {
    fn holds(self, traits: &Traits) -> bool {
        let four = traits.queries_per_key >= 4;
        match self {
            Self::Always => true,
            Self::FourQueries => four,
            Self::FourQueriesOrExperts => four || traits.experts >= 4,
        }
    }
}

impl Class {
    fn names(self, tensor: &Tensor, attends: bool) -> bool {
        match self {
            Self::Query => tensor.role == Role::Query,
            Self::Key => tensor.role == Role::Key,
            Self::Value => tensor.is_value(),
            Self::Output => tensor.role == Role::Output,
            Self::GateUp => matches!(tensor.role, Role::Gate | Role::Up),
            Self::Down => tensor.role == Role::Down,
            Self::Experts => tensor.routed,
            Self::Attention => attends,
        }
    }
}

impl Cell {
    /// Bytes of so many parameters in rows of such a length. A row that a ggml type's blocks do
    /// not divide gets the type that llama.cpp falls back to.
    fn bytes(self, params: u64, row: u64) -> u64 {
        let cell = self.for_row(row);
        (params / cell.elements) * cell.bytes
            + (params % cell.elements * cell.bytes).div_ceil(cell.elements)
    }

    fn for_row(self, row: u64) -> Self {
        let Some(ggml) = self.ggml.filter(|_| !row.is_multiple_of(self.elements)) else {
            return self;
        };
        let other = match ggml.name() {
            "Q4_K" => "Q5_0",
            "Q5_K" => "Q5_1",
            "Q6_K" => "Q8_0",
            "Q2_K" | "Q3_K" => "Q4_0",
            name if name.starts_with("IQ") && self.elements == 256 => "IQ4_NL",
            _ => "F16",
        };
        let cell = table::ggml_cell(other).unwrap_or(self);
        if row.is_multiple_of(cell.elements) {
            cell
        } else {
            table::ggml_cell("F16").unwrap_or(self)
        }
    }
}

impl Mix {
    /// Whether the quantization makes sense for a model.
    pub fn fits(&self, facts: &Facts) -> bool {
        !self.experts_only || facts.experts > 0
    }

    /// The weights of a model, computed.
    pub fn quantization(&self, parts: &Parts) -> Quantization {
        let weights = self.weights(parts);
        Quantization {
            name: self.name.clone(),
            format: self.format,
            bits_per_weight: bits_per_weight(&weights, parts.params),
            weights,
            exactness: Exactness::Computed,
            source: format!("computed after {}", self.source),
        }
    }

    /// The bytes of each part.
    pub fn weights(&self, parts: &Parts) -> Weights {
        let layers = parts.layers.len() as u64;
        let mut known: Vec<(Case, LayerBytes)> = Vec::new();
        let mut all = Vec::with_capacity(parts.layers.len());
        for (index, layer) in (0_u64..).zip(&parts.layers) {
            let case = Case {
                kind: layer.kind,
                place: self.holding(Place { index, of: layers }),
                turn: self.holding(Place {
                    index: layer.turn,
                    of: parts.turns,
                }),
            };
            let found = known.iter().find(|(other, _)| *other == case);
            let bytes = found.map_or_else(|| self.layer(parts, case), |(_, bytes)| *bytes);
            if found.is_none() {
                known.push((case, bytes));
            }
            all.push(bytes);
        }
        let table = if parts.tied {
            self.head
        } else {
            self.embedding
        };
        let outer = |tensor: &Tensor| match tensor.role {
            Role::Embedding => table.bytes(tensor.params, tensor.row),
            Role::Head => self.head.bytes(tensor.params, tensor.row),
            _ => self.float.bytes(tensor.params, tensor.row),
        };
        Weights {
            embedding_bytes: outer(&parts.embedding),
            head_bytes: parts.head.iter().map(outer).sum(),
            tied: parts.tied,
            head_type: self.head.for_row(parts.embedding.row).ggml,
            shared_bytes: parts.shared.iter().map(outer).sum(),
            layers: all,
            types: Vec::new(),
        }
    }

    /// Which rules hold at a place, one bit each.
    fn holding(&self, place: Place) -> u64 {
        let bits = self
            .rules
            .iter()
            .enumerate()
            .map(|(bit, rule)| u64::from(rule.layers.hold(place)) << bit);
        bits.sum()
    }

    fn layer(&self, parts: &Parts, case: Case) -> LayerBytes {
        let mut own = LayerBytes::default();
        let Some(kind) = parts.kinds.get(case.kind) else {
            return own;
        };
        for (tensor, attends) in kind
            .mixer
            .iter()
            .map(|t| (t, true))
            .chain(kind.feed.iter().map(|t| (t, false)))
        {
            let rules = if tensor.is_value() {
                case.turn
            } else {
                case.place
            };
            let cell = match tensor.role {
                Role::Float => self.float,
                _ => self.cell(tensor, attends, rules, &parts.traits),
            };
            let bytes = cell.bytes(tensor.params, tensor.row);
            if tensor.routed {
                own.experts += bytes;
            } else {
                own.dense += bytes;
            }
        }
        own
    }

    fn cell(&self, tensor: &Tensor, attends: bool, rules: u64, traits: &Traits) -> Cell {
        if tensor.routed
            && traits.mxfp4_experts
            && self.format == Format::Gguf
            && let Some(mxfp4) = table::ggml_cell("MXFP4")
        {
            return mxfp4;
        }
        let rule = self.rules.iter().enumerate().find(|(bit, rule)| {
            rules >> bit & 1 == 1 && rule.tensor.names(tensor, attends) && rule.when.holds(traits)
        });
        let cell = rule.map_or(self.base, |(_, rule)| rule.cell);
        let Some(ggml) = cell.ggml.filter(|ggml| ggml.block_elements() > 1) else {
            return cell;
        };
        // What llama.cpp does for all its mixes: models of eight experts keep their small tensors
        // wide, and so do those of 80 layers, whose values are small.
        let wide = match tensor.role {
            Role::Value | Role::Fused | Role::Key if traits.experts == 8 => Some("Q8_0"),
            Role::Output
                if traits.experts == 8 && matches!(ggml.name(), "Q2_K" | "Q3_K" | "Q4_K") =>
            {
                Some("Q5_K")
            }
            Role::Value if traits.seventy_b && matches!(ggml.name(), "Q3_K" | "Q4_K") => {
                Some("Q5_K")
            }
            _ => None,
        };
        let wide = wide.filter(|_| ggml.name().ends_with("_K"));
        wide.and_then(table::ggml_cell).unwrap_or(cell)
    }
}

impl Quantization {
    /// The same shares with another sum, as a published file states it.
    #[must_use]
    pub fn with_total(mut self, total_bytes: u64, params: u64, source: &str) -> Self {
        self.weights = self.weights.scaled(total_bytes);
        self.bits_per_weight = bits_per_weight(&self.weights, params);
        self.exactness = Exactness::Total;
        source.clone_into(&mut self.source);
        self
    }
}

impl Weights {
    /// The same shares of another sum; rounding falls to the embedding.
    #[must_use]
    fn scaled(mut self, total_bytes: u64) -> Self {
        let own = self.total().max(1);
        let scale = |bytes: u64| {
            let scaled = u128::from(bytes) * u128::from(total_bytes) / u128::from(own);
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        self.embedding_bytes = scale(self.embedding_bytes);
        self.head_bytes = scale(self.head_bytes);
        self.shared_bytes = scale(self.shared_bytes);
        for layer in &mut self.layers {
            *layer = LayerBytes {
                dense: scale(layer.dense),
                experts: scale(layer.experts),
            };
        }
        self.embedding_bytes += total_bytes.saturating_sub(self.total());
        self
    }
}

fn bits_per_weight(weights: &Weights, params: u64) -> f64 {
    8.0 * weights.total() as f64 / params.max(1) as f64
}
