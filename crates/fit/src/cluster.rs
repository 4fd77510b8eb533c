//! Machines and the links between them.

pub mod text;

use serde::Serialize;

use crate::machine::{Machine, PoolKind};

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

    /// What the text of the machines leaves out, without which an answer is unknown, and what to
    /// write: a sentence each.
    pub fn left_out(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.nodes.len() > 1 && self.links == Links::Unnamed {
            found.push(format!(
                "no link joins the {} machines, so nothing is known of plans over several: add one, \
                 such as `, link=10gbe`",
                self.nodes.len()
            ));
        }
        let mut pools = self.nodes.iter().flat_map(|node| &node.machine.pools);
        let written = self.id.to_ascii_lowercase().contains("ram");
        if written && pools.any(|pool| pool.device == "cpu") {
            found.push(
                "the CPU beside the GPUs is unknown, and so the speed of what lies in RAM: add it \
                 by `, cpu=ID`"
                    .to_owned(),
            );
        }
        found
    }

    /// All memory of all nodes, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.nodes
            .iter()
            .map(|node| node.machine.memory_bytes())
            .sum()
    }

    /// System memory of nodes that have GPUs with memories of their own, in bytes.
    pub fn ram_beside_gpus(&self) -> u64 {
        let hosts = self.nodes.iter().map(|node| &node.machine.pools);
        let pools = hosts.filter(|pools| pools.len() > 1).flatten();
        pools
            .filter(|pool| pool.kind == PoolKind::Ram)
            .map(|pool| pool.memory_bytes)
            .sum()
    }
}
