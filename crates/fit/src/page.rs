//! Pages as data: what the terminal, JSON and HTML show is made of the same structs.
//!
//! A page is a struct that serializes to its JSON and lays itself out as a [`Doc`];
//! nothing is computed while it is shown.

mod backtest;
mod combo;
pub mod doc;
mod everywhere;
pub mod format;
mod formats;
pub(crate) mod grid;
mod guide;
mod index;
mod ledger;
mod link;
mod machine;
mod measured;
mod method;
mod model;
mod parts;
mod plan;
mod thresholds;
mod verdict;
mod words;

use serde::Serialize;

pub use backtest::{Accuracy, BacktestPage, GroupRow, Miss, RefusedRow};
pub use combo::{ComboPage, ModelRow, Opportunity, SplitCase, Worked};
pub use everywhere::{EverywherePage, Place, PlaceKind};
pub use guide::{FewerRow, Guide, HopRow, SmallestRow};
pub use index::Index;
pub use machine::MachinePage;
pub use measured::MeasuredRow;
pub use method::{Bits, Limit, Method};
pub use model::{ModelPage, QuantRow};
pub use parts::{Counts, Head, LinkRow, NodeRow, PoolRow, RuntimeRow, Stamp};
pub use plan::{PlanPage, StageRow};
pub use verdict::{ContextRow, VerdictPage};

use doc::Doc;

/// What can be shown.
pub trait Page: Serialize {
    /// The page as blocks.
    fn doc(&self) -> Doc;
}
