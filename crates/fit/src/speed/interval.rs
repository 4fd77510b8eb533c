//! 80 % intervals: how far off predictions of the same kind were.

use super::classes::Family;

/// Rows whose errors are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Decode of a dense model whose size is known.
    Sized,
    /// Decode of a dense model whose size comes from its parameters.
    Named,
    /// Decode of a mixture of experts.
    Moe,
    /// Decode where a GPU's memory is full or flows over.
    Tight,
    /// Prefill on an Apple chip.
    PrefillApple,
    /// Prefill on one other processor.
    PrefillOne,
    /// Prefill on several GPUs of one host.
    PrefillSeveral,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Sized,
        Self::Named,
        Self::Moe,
        Self::Tight,
        Self::PrefillApple,
        Self::PrefillOne,
        Self::PrefillSeveral,
    ];

    /// Of a decode.
    pub fn of_decode(tight: bool, moe: bool, sized: bool) -> Self {
        match (tight, moe, sized) {
            (true, ..) => Self::Tight,
            (_, true, _) => Self::Moe,
            (_, _, true) => Self::Sized,
            _ => Self::Named,
        }
    }

    /// Of a prefill.
    pub fn of_prefill(family: Family, several: bool) -> Self {
        match (several, family.is_apple()) {
            (true, _) => Self::PrefillSeveral,
            (_, true) => Self::PrefillApple,
            _ => Self::PrefillOne,
        }
    }

    /// Its name in files and output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sized => "sized",
            Self::Named => "named",
            Self::Moe => "experts",
            Self::Tight => "tight",
            Self::PrefillApple => "prefill, apple",
            Self::PrefillOne => "prefill, one processor",
            Self::PrefillSeveral => "prefill, several GPUs",
        }
    }
}

/// The value below which a share of the weight lies; 0 without values.
pub(crate) fn weighted_quantile(values: &mut [(f64, f64)], share: f64) -> f64 {
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all: f64 = values.iter().map(|(_, weight)| weight).sum();
    let mut sum = 0.0;
    for (value, weight) in values.iter() {
        sum += weight;
        if sum >= share * all {
            return *value;
        }
    }
    0.0
}
