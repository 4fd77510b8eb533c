//! Pages as data: what the terminal and JSON show is made of the same structs.
//!
//! A page is a struct that serializes to its JSON and lays itself out as a [`Doc`];
//! nothing is computed while it is shown.

mod combo;
pub mod doc;
mod everywhere;
pub mod format;
mod link;
mod parts;
mod plan;
mod thresholds;
mod verdict;

use serde::Serialize;

pub use combo::{ComboPage, ModelRow, Opportunity, SplitCase, Worked};
pub use everywhere::{EverywherePage, Place};
pub use parts::{Counts, Head, LinkRow, NodeRow, PoolRow, RuntimeRow, Stamp};
pub use plan::{PlanPage, StageRow};
pub use verdict::ModelVerdictPage;

use doc::Doc;

/// What can be shown.
pub trait Page: Serialize {
    /// The page as blocks.
    fn doc(&self) -> Doc;
}
