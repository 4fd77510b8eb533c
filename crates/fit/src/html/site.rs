//! All pages of a catalog.

use std::collections::HashSet;

use super::{Renderer, STYLE};
use crate::catalog::Catalog;
use crate::error::FitError;
use crate::page::doc::Target;
use crate::page::grid::Grid;
use crate::page::{BacktestPage, Index, Method, Page};
use crate::speed::Speed;
use crate::verdict::Ask;

/// Every page of a catalog: files with their contents, by path within the site. Pages link to each
/// other by relative paths, and ask no other host for anything.
pub fn site(
    catalog: &Catalog,
    ask: &Ask,
    speed: &dyn Speed,
    backtest: Option<BacktestPage>,
) -> Result<Vec<(String, String)>, FitError> {
    let grid = Grid::new(catalog, ask, speed)?;
    let combos = grid.combos()?;
    let models = grid.models();
    let machines = grid.machines();
    let guide = grid.guide(&combos, &models)?;
    let index = Index::new(catalog, &combos, &machines, &models);
    let mut pages = vec![
        (Target::Index, index.doc()),
        (Target::Guide, guide.doc()),
        (Target::Method, Method::new(catalog, backtest).doc()),
    ];
    for page in &combos {
        pages.push((Target::Combo(page.head.combo.clone()), page.doc()));
    }
    for page in &machines {
        pages.push((Target::Machine(page.head.combo.clone()), page.doc()));
    }
    for page in &models {
        pages.push((Target::Model(page.everywhere.id.clone()), page.doc()));
    }
    let paths: Vec<String> = pages.iter().map(|(target, _)| target.path()).collect();
    let renderer = Renderer::new(&paths.iter().cloned().collect::<HashSet<_>>())?;
    let mut files = vec![("style.css".to_owned(), STYLE.to_owned())];
    for (path, (_, doc)) in paths.into_iter().zip(&pages) {
        let page = renderer.within(doc, &path)?;
        files.push((path, page));
    }
    Ok(files)
}
