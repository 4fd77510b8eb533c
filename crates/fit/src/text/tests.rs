//! Pages as people see them in a terminal, on machines and models that no catalog changes.

use super::{Style, WIDTH, render};
use crate::catalog::Catalog;
use crate::page::{ComboPage, Page, VerdictPage};
use crate::placement::fixtures::{Roofline, dense, moe, quad};
use crate::verdict::Ask;

/// The catalog with four models made by hand, and of the rest what the pages mention.
fn catalog() -> Catalog {
    let mut catalog = Catalog::embedded().expect("the catalog is whole");
    catalog.models = vec![
        dense("dense-70b", 80, 40_000_000_000),
        moe("moe-200b", 60, 110_000_000_000),
        moe("moe-350b", 60, 185_000_000_000),
        dense("dense-800b", 100, 450_000_000_000),
    ];
    catalog.combos.clear();
    catalog
        .machines
        .retain(|sold| sold.machine.id == "mac-studio-m3-ultra-96gb");
    catalog.runtimes.truncate(1);
    catalog.failures.truncate(1);
    catalog.measurements.clear();
    for link in &mut catalog.links {
        link.note = None;
    }
    catalog
}

/// The page's text without what changes from version to version.
fn shown(page: &impl Page, catalog: &Catalog) -> String {
    let text = render(page, Style::Plain);
    for line in text.lines().filter(|line| !line.contains("https://")) {
        assert!(line.chars().count() <= WIDTH, "{line}");
    }
    // The models' own day is no longer the catalog's after a later entry.
    text.replace(env!("CARGO_PKG_VERSION"), "VERSION")
        .replace(&catalog.date(), "DATE")
        .replace(&catalog.models[0].date, "DATE")
}

#[test]
fn a_combo() {
    let catalog = catalog();
    let page = ComboPage::new(&catalog, &quad(), &Ask::default(), &Roofline).expect("a page");
    insta::assert_snapshot!(shown(&page, &catalog));
}

#[test]
fn a_verdict() {
    let catalog = catalog();
    let model = &catalog.models[1];
    let page =
        VerdictPage::new(&catalog, model, &quad(), &Ask::default(), &Roofline).expect("a page");
    insta::assert_snapshot!(shown(&page, &catalog));
}

/// Names come from files that others wrote.
#[test]
fn a_hostile_name_keeps_to_its_place() {
    let mut catalog = catalog();
    let mut cluster = quad();
    let long = format!("<b>\u{1b}[2J\u{202e}{}", "x".repeat(400));
    cluster.name.clone_from(&long);
    for node in &mut cluster.nodes {
        node.name.clone_from(&long);
        node.machine.name.clone_from(&long);
        node.machine.pools[0].device_name = format!("{long} {long}");
    }
    for model in &mut catalog.models {
        model.name.clone_from(&long);
        model.quants[0].name.clone_from(&long);
        model.production = vec![long.clone()];
    }
    let ask = Ask::default();
    let pages = [
        render(
            &ComboPage::new(&catalog, &cluster, &ask, &Roofline).expect("a page"),
            Style::Plain,
        ),
        render(
            &VerdictPage::new(&catalog, &catalog.models[0], &cluster, &ask, &Roofline)
                .expect("a page"),
            Style::Plain,
        ),
    ];
    for page in pages {
        assert!(page.contains("<b>"), "{page}");
        assert!(page.chars().all(|c| c == '\n' || !c.is_control()), "{page}");
        assert!(!page.contains('\u{202e}'));
        for line in page
            .lines()
            .filter(|line| !line.contains("https://") && !line.starts_with("  brigade"))
        {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }
}

#[test]
fn colour_changes_no_word() {
    let catalog = catalog();
    let page = ComboPage::new(&catalog, &quad(), &Ask::default(), &Roofline).expect("a page");
    let mut plain = String::new();
    let coloured = render(&page, Style::Ansi);
    let mut letters = coloured.chars();
    while let Some(c) = letters.next() {
        if c == '\u{1b}' {
            letters.by_ref().find(|c| *c == 'm');
        } else {
            plain.push(c);
        }
    }
    assert_eq!(plain, render(&page, Style::Plain));
}
