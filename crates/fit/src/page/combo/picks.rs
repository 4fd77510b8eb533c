//! Which models of a cluster a page shows in full.

use super::SplitCase;
use crate::FitError;
use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::evidence::Estimate;
use crate::page::format::times;
use crate::speed::Speed;
use crate::verdict::{Ask, Detail, Split, Tier, Verdict, assess};

/// Share of effective memory that the worked case's weights take, about.
const WORKED_SHARE: f64 = 0.6;

/// A cluster with its verdicts.
pub(super) struct Picks<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) cluster: &'a Cluster,
    pub(super) ask: &'a Ask,
    pub(super) speed: &'a dyn Speed,
    pub(super) verdicts: &'a [Verdict],
}

impl<'a> Picks<'a> {
    /// A comfortable model that is quick: on one node the largest, over several one that takes a
    /// good part of the memory of more than one.
    pub(super) fn worked(&self) -> Option<&'a Verdict> {
        let effective = crate::effective::of_cluster(self.cluster, self.ask.measured);
        let aim = effective.effective_bytes as f64 * WORKED_SHARE;
        let off = |verdict: &Verdict| (verdict.weights_bytes as f64 - aim).abs();
        let fitting = self
            .verdicts
            .iter()
            .filter(|verdict| verdict.tier == Tier::Comfortable);
        if self.cluster.nodes.len() == 1 {
            return fitting
                .max_by_key(|verdict| (is_quick(verdict.decode_tok_s), verdict.weights_bytes));
        }
        fitting.min_by(|a, b| {
            let on_one = |verdict: &Verdict| verdict.nodes_used() <= 1;
            let key = |verdict: &Verdict| (on_one(verdict), !is_quick(verdict.decode_tok_s));
            key(a).cmp(&key(b)).then(off(a).total_cmp(&off(b)))
        })
    }

    /// The largest model that touches all its weights for each token, comfortable on one node.
    pub(super) fn on_one_node(&self) -> Option<&'a Verdict> {
        let one = self
            .verdicts
            .iter()
            .filter(|verdict| verdict.tier == Tier::Comfortable && verdict.nodes_used() == 1);
        one.max_by_key(|verdict| (self.is_dense(&verdict.id), verdict.weights_bytes))
    }

    /// The comfortable model on one node with the fewest weights a token: a hop shows most there.
    pub(super) fn lightest(&self) -> Option<&'a Verdict> {
        let experts = |id: &str| {
            let model = self.catalog.models.iter().find(|model| model.id == id);
            model
                .filter(|model| model.experts > 0)
                .map(|model| model.active_params)
        };
        self.verdicts
            .iter()
            .filter(|verdict| verdict.tier == Tier::Comfortable && verdict.nodes_used() == 1)
            .filter_map(|verdict| Some((experts(&verdict.id)?, verdict)))
            .min_by_key(|(active, verdict)| (*active, verdict.weights_bytes))
            .map(|(_, verdict)| verdict)
    }

    /// The ways to run the worked case, and what a split makes of a model that fits one node.
    pub(super) fn splits(&self, worked: Option<&Verdict>) -> Result<Vec<SplitCase>, FitError> {
        let mut cases: Vec<SplitCase> = Vec::new();
        for verdict in [worked, self.on_one_node(), self.lightest()]
            .into_iter()
            .flatten()
        {
            if cases.iter().any(|case| case.id == verdict.id) {
                continue;
            }
            let full = self.full(&verdict.id, self.cluster)?;
            if let Some(full) = full.filter(|full| full.alternatives.len() > 1) {
                cases.push(SplitCase {
                    name: format!("{} at {}", full.name, full.quant),
                    id: full.id,
                    alternatives: full.alternatives,
                });
            }
        }
        Ok(cases)
    }

    /// A model of the catalog on a cluster, with all that is known.
    pub(super) fn full(&self, id: &str, cluster: &Cluster) -> Result<Option<Verdict>, FitError> {
        let ask = Ask {
            detail: Detail::Full,
            ..self.ask.clone()
        };
        let model = self.catalog.models.iter().find(|model| model.id == id);
        model
            .map(|model| assess(model, cluster, &ask, self.speed))
            .transpose()
    }

    /// The smallest combo of the catalog on which a model of this size is comfortable.
    pub(super) fn larger(
        &self,
        id: &str,
        weights_bytes: u64,
    ) -> Result<Option<(String, String)>, FitError> {
        let Some(model) = self.catalog.models.iter().find(|model| model.id == id) else {
            return Ok(None);
        };
        let ask = Ask {
            detail: Detail::Brief,
            ..self.ask.clone()
        };
        let combos = self.catalog.combos.iter().map(|combo| &combo.cluster);
        let mut large: Vec<(u64, &Cluster)> = combos
            .filter(|cluster| {
                crate::effective::of_cluster(cluster, None).effective_bytes > weights_bytes
            })
            .map(|cluster| (cluster.total_bytes(), cluster))
            .collect();
        large.sort_by_key(|(total, cluster)| (*total, &cluster.id));
        for (_, cluster) in large {
            if assess(model, cluster, &ask, self.speed)?.tier == Tier::Comfortable {
                return Ok(Some((cluster.id.clone(), times(&cluster.name))));
            }
        }
        Ok(None)
    }

    pub(super) fn is_dense(&self, id: &str) -> bool {
        let model = self.catalog.models.iter().find(|model| model.id == id);
        model.is_some_and(|model| model.experts == 0)
    }
}

/// Tokens a second from which on a model is worth a recommendation.
const QUICK: f64 = 10.0;

/// Whether an answer comes quicker than one reads.
pub(in crate::page) fn is_quick(rate: Option<Estimate>) -> bool {
    rate.is_some_and(|rate| rate.mid >= QUICK)
}

impl SplitCase {
    /// The rate of one stream on one node, and over the most nodes in a pipeline, with their
    /// number.
    pub(in crate::page) fn one_and_all(&self) -> Option<(f64, f64, &str)> {
        let rate = |split: Split| {
            let ways = self
                .alternatives
                .iter()
                .filter(move |way| way.split == split && way.fits);
            ways.filter_map(|way| Some((way.decode_tok_s?.mid, way.name.as_str())))
        };
        let (one, _) = rate(Split::OneNode).next()?;
        let (all, name) = rate(Split::Pipeline).next_back()?;
        Some((one, all, name))
    }
}
