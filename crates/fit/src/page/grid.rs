//! Every model on every machine and combo of the catalog, assessed once for many pages.

use super::combo::ComboPage;
use super::everywhere::{EverywherePage, Place, PlaceKind, places, twice};
use super::guide::Guide;
use super::machine::MachinePage;
use super::measured::Measured;
use super::model::ModelPage;
use crate::FitError;
use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::speed::Speed;
use crate::verdict::{Ask, Verdict, assess};

/// Verdicts by place and model.
pub(crate) struct Grid<'a> {
    catalog: &'a Catalog,
    ask: &'a Ask,
    speed: &'a dyn Speed,
    measured: Measured<'a>,
    places: Vec<(PlaceKind, Cluster)>,
    /// In the order of places, then of the catalog's models.
    verdicts: Vec<Vec<Verdict>>,
}

impl<'a> Grid<'a> {
    /// Assesses all.
    pub(crate) fn new(
        catalog: &'a Catalog,
        ask: &'a Ask,
        speed: &'a dyn Speed,
    ) -> Result<Self, FitError> {
        let places = places(catalog);
        let verdicts: Result<_, FitError> = places
            .iter()
            .map(|(_, cluster)| {
                let models = catalog.models.iter();
                models
                    .map(|model| assess(model, cluster, ask, speed))
                    .collect()
            })
            .collect();
        Ok(Self {
            catalog,
            ask,
            speed,
            measured: Measured::new(catalog),
            verdicts: verdicts?,
            places,
        })
    }

    fn of(&self, kind: PlaceKind) -> impl Iterator<Item = (&Cluster, &Vec<Verdict>)> {
        let all = self.places.iter().zip(&self.verdicts);
        all.filter(move |((own, _), _)| *own == kind)
            .map(|((_, cluster), verdicts)| (cluster, verdicts))
    }

    /// A page for each combo.
    pub(crate) fn combos(&self) -> Result<Vec<ComboPage>, FitError> {
        self.of(PlaceKind::Combo)
            .map(|(cluster, verdicts)| {
                ComboPage::of(
                    self.catalog,
                    cluster,
                    self.ask,
                    self.speed,
                    verdicts,
                    &self.measured,
                )
            })
            .collect()
    }

    /// A page for each machine.
    pub(crate) fn machines(&self) -> Vec<MachinePage> {
        self.of(PlaceKind::Machine)
            .zip(&self.catalog.machines)
            .map(|((_, verdicts), sold)| {
                MachinePage::new(self.catalog, sold, self.ask, verdicts, &self.measured)
            })
            .collect()
    }

    /// A page for each model.
    pub(crate) fn models(&self) -> Vec<ModelPage> {
        let models = self.catalog.models.iter().enumerate();
        models
            .map(|(index, model)| {
                let places = self.places.iter().zip(&self.verdicts);
                let places = places.filter_map(|((kind, cluster), verdicts)| {
                    let verdict = verdicts.get(index)?;
                    (!twice(self.catalog, *kind, cluster))
                        .then(|| Place::new(*kind, cluster, verdict))
                });
                let everywhere =
                    EverywherePage::of(self.catalog, model, self.ask, places.collect());
                ModelPage::new(model, everywhere)
            })
            .collect()
    }

    /// The guide.
    pub(crate) fn guide(
        &self,
        combos: &[ComboPage],
        models: &[ModelPage],
    ) -> Result<Guide, FitError> {
        Guide::new(self.catalog, combos, models, self.ask, self.speed)
    }
}
