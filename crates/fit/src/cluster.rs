//! Machines and the links between them.

pub mod text;

use serde::Serialize;

use crate::machine::Machine;

/// A set of machines and links, from the catalog (a combo) or written as text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cluster {
    /// A combo's id, or the text that it was read from.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// The nodes, in their natural order; at least one.
    pub nodes: Vec<Node>,
    /// How nodes reach each other.
    pub links: Links,
}

/// One machine of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    /// Its name within the cluster, such as `node-1`.
    pub name: String,
    /// The machine.
    pub machine: Machine,
}

/// A kind of link.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Link {
    /// Its id in the catalog, such as `tb5`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// One way, for a small message over TCP, in milliseconds.
    pub latency_ms: f64,
    /// What TCP achieves over it, in 10⁹ bytes a second.
    pub bandwidth_gb_s: f64,
    /// The same over RDMA, where the link can.
    pub rdma: Option<Rdma>,
    /// Where the numbers come from.
    pub source: String,
}

/// A link's figures under RDMA.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rdma {
    /// One way, for a small message, in milliseconds.
    pub latency_ms: f64,
    /// In 10⁹ bytes a second.
    pub bandwidth_gb_s: f64,
}

/// The links of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Links {
    /// One machine, or a link that nobody named: a plan over several nodes is then unknown.
    Unnamed,
    /// The same link between all pairs.
    Uniform(Link),
    /// `[from][to]`, square; `None` where two nodes do not reach each other, and on the diagonal.
    Pairs(Vec<Vec<Option<Link>>>),
}

impl Cluster {
    /// A machine alone, under its own name.
    pub fn alone(machine: Machine) -> Self {
        Self {
            id: machine.id.clone(),
            name: machine.name.clone(),
            nodes: vec![Node {
                name: "node-1".into(),
                machine,
            }],
            links: Links::Unnamed,
        }
    }

    /// The link from one node to another, by index, if it is known.
    pub fn link(&self, from: usize, to: usize) -> Option<&Link> {
        match &self.links {
            _ if from == to => None,
            Links::Unnamed => None,
            Links::Uniform(link) => Some(link),
            Links::Pairs(pairs) => pairs.get(from)?.get(to)?.as_ref(),
        }
    }

    /// All memory of all nodes, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.nodes
            .iter()
            .map(|node| node.machine.memory_bytes())
            .sum()
    }
}
