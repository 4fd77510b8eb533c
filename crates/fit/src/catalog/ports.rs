//! Which links machines have ports for.

use super::Catalog;
use super::links::{CatalogLink, LinkKind};
use crate::cluster::{Cluster, Link};

impl Catalog {
    /// Links that may join the nodes of a cluster: those that each of them has a port for; between
    /// machines that are not in the catalog, wires of Ethernet.
    pub fn links_between(&self, cluster: &Cluster) -> Vec<Link> {
        let may = |link: &&CatalogLink| {
            cluster
                .nodes
                .iter()
                .all(|node| match self.machine(&node.machine.id) {
                    Some(sold) => sold.links.contains(&link.link.id),
                    None => link.kind == LinkKind::Ethernet,
                })
        };
        let links = self
            .links
            .iter()
            .filter(|link| !matches!(link.kind, LinkKind::Host | LinkKind::Loopback));
        links.filter(may).map(|link| link.link.clone()).collect()
    }

    /// Links that were asked for between machines which have no port for them, as sold, a sentence
    /// each.
    pub fn missing_ports(&self, cluster: &Cluster) -> Vec<String> {
        let mut said = Vec::new();
        for node in cluster.nodes.iter().filter(|_| cluster.nodes.len() > 1) {
            let mut sold = self.machines.iter();
            let Some(sold) = sold.find(|sold| sold.machine.id == node.machine.id) else {
                continue;
            };
            for link in cluster.distinct_links() {
                // A card or an adapter for Ethernet goes into anything.
                let easy = matches!(
                    self.link_kind(&link.id),
                    Some(LinkKind::Ethernet | LinkKind::Wifi) | None
                );
                if easy || sold.links.is_empty() || sold.links.contains(&link.id) {
                    continue;
                }
                let hint = format!(
                    "{} is sold with {}, not with {}",
                    sold.machine.name,
                    sold.links.join(", "),
                    link.name
                );
                if !said.contains(&hint) {
                    said.push(hint);
                }
            }
        }
        said
    }
}
