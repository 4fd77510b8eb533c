//! The links that machines can really have: a cable is as fast as the older of its two ends.

use crate::catalog::Catalog;
use crate::catalog::hardware::SoldMachine;
use crate::catalog::links::{CatalogLink, LinkKind};
use crate::cluster::{Link, Links};

/// Macs that RDMA over Thunderbolt can join: every two need a cable.
const RDMA_MOST: usize = 4;

/// What a machine's ports can do.
#[derive(Clone, Default)]
pub(super) struct Ports {
    /// Its best Thunderbolt or USB4 port; none where it is unknown.
    thunderbolt: Option<Link>,
    /// Whether that can do RDMA.
    rdma: bool,
}

impl Ports {
    /// The ports of a machine that is sold; nothing is known of another one.
    pub(super) fn of(catalog: &Catalog, sold: Option<&SoldMachine>) -> Self {
        let Some(sold) = sold else {
            return Self::default();
        };
        let cables = catalog.links.iter().filter(|link| {
            link.kind == LinkKind::Thunderbolt && sold.links.contains(&link.link.id)
        });
        let best = cables.max_by(|a, b| a.link.bandwidth_gb_s.total_cmp(&b.link.bandwidth_gb_s));
        Self {
            thunderbolt: best.map(|link| link.link.clone()),
            rdma: sold.rdma,
        }
    }
}

/// The links between all nodes, where `wanted` was asked for.
///
/// Thunderbolt falls to what the older end has, and does RDMA only where both ends can, among at most four
/// machines.
pub(super) fn links(wanted: &CatalogLink, ports: &[Ports]) -> Links {
    if wanted.kind != LinkKind::Thunderbolt {
        return Links::Uniform(wanted.link.clone());
    }
    let between = |a: &Ports, b: &Ports| {
        let ends = [a, b]
            .into_iter()
            .filter_map(|end| end.thunderbolt.as_ref());
        let slowest = ends
            .chain([&wanted.link])
            .min_by(|a, b| a.bandwidth_gb_s.total_cmp(&b.bandwidth_gb_s));
        let mut link = slowest.unwrap_or(&wanted.link).clone();
        if same_speed(&link, &wanted.link) {
            link = wanted.link.clone();
        }
        if !(a.rdma && b.rdma) || ports.len() > RDMA_MOST {
            link.rdma = None;
        }
        link
    };
    let pair = |from: usize, to: usize| (from != to).then(|| between(&ports[from], &ports[to]));
    let nodes = ports.len();
    let pairs: Vec<Vec<Option<Link>>> = (0..nodes)
        .map(|from| (0..nodes).map(|to| pair(from, to)).collect())
        .collect();
    let mut all = pairs.iter().flatten().flatten();
    match all.next() {
        Some(first) if all.all(|link| link == first) => Links::Uniform(first.clone()),
        _ => Links::Pairs(pairs),
    }
}

fn same_speed(a: &Link, b: &Link) -> bool {
    (a.bandwidth_gb_s - b.bandwidth_gb_s).abs() < f64::EPSILON
}
