//! How a model is spread over nodes.

use serde::{Deserialize, Serialize};

/// Ways to spread a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// All of it on one node.
    OneNode,
    /// A copy on each of several nodes.
    Replicas,
    /// Layer ranges on several nodes.
    Pipeline,
    /// Every layer shared by several nodes.
    Tensor,
}
