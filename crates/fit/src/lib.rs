//! What runs on a set of machines, how well, and how that is known: before anyone buys, cables
//! or downloads.
//!
//! The way of a question: a [`Catalog`](catalog::Catalog) gives the facts of machines, links
//! and models, each with its source; [`cluster`] reads machines from text; [`memory`] says what
//! each node would hold; [`placement`] divides the layers; [`speed`] says how fast, with an
//! interval, by factors that [`calibrate`] fits to measurements; [`verdict`] puts a model on a
//! cluster into a fit tier, with reasons; [`page`] is all of it as data that the terminal, JSON
//! and [`html`] show.
//!
//! Pure: no clock, socket, environment or home folder, and nothing is printed. A fact that is
//! missing gives [`Tier::Unknown`](verdict::Tier) and the fact's name, never a guess.

pub mod alternatives;
pub mod calibrate;
pub mod catalog;
pub mod cluster;
pub mod effective;
pub mod emit;
pub mod error;
pub mod evidence;
pub mod html;
pub mod machine;
pub mod memory;
pub mod model;
pub mod nearest;
pub mod page;
pub mod placement;
pub mod program;
mod rows;
pub mod speed;
pub mod split;
pub mod text;
pub mod verdict;

pub use error::FitError;
