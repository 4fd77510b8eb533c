//! Pages as people see them in a terminal, on machines and models that no catalog changes.

use proptest::prelude::*;

use super::{Style, WIDTH, WIDTHS, render, render_doc};
use crate::calibrate::backtest_all;
use crate::catalog::Catalog;
use crate::evidence::{Estimate, Evidence};
use crate::page::doc::{Align, Block, Cell, Column, Doc, Row, Section, Table};
use crate::page::{ComboPage, EverywherePage, Page, PlanPage, VerdictPage};
use crate::placement::fixtures::{Roofline, dense, moe, quad};
use crate::speed::SpeedModel;
use crate::verdict::{Ask, Tier};

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
    let text = render(page, Style::Plain, WIDTH);
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
            WIDTH,
        ),
        render(
            &VerdictPage::new(&catalog, &catalog.models[0], &cluster, &ask, &Roofline)
                .expect("a page"),
            Style::Plain,
            WIDTH,
        ),
    ];
    for page in pages {
        assert!(page.contains("<b>"), "{page}");
        assert!(page.chars().all(|c| c == '\n' || !c.is_control()), "{page}");
        assert!(!page.contains('\u{202e}'));
        keeps_to(&page, WIDTH);
    }
}

/// No line is longer, but for words that must stay whole: addresses, and command lines.
fn keeps_to(page: &str, width: usize) {
    for line in page
        .lines()
        .filter(|line| !line.contains("https://") && !line.starts_with("  brigade"))
    {
        let length = line.chars().count();
        assert!(length <= width, "{length} of {width}: {line}");
    }
}

/// Pages of every kind that a terminal shows, of the catalog as it is.
fn pages() -> Vec<Doc> {
    let catalog = Catalog::embedded().expect("the catalog is whole");
    let (speed, ask) = (SpeedModel::new(&catalog), Ask::default());
    let mut docs = Vec::new();
    let mixed = "mac-studio-m3-ultra-256gb + 2x rtx-3090, link=10gbe, ram=128gb, cpu=ryzen-9-9950x";
    for on in ["quad-mac-mini-m4-pro-64gb", mixed] {
        let cluster = catalog.cluster(on).expect(on);
        let page = ComboPage::new(&catalog, &cluster, &ask, &speed).expect(on);
        docs.push(page.doc());
        for name in ["llama-3.3-70b", "qwen3-235b-a22b", "deepseek-v3.1"] {
            let model = catalog.model(name).expect(name);
            let page = VerdictPage::new(&catalog, model, &cluster, &ask, &speed).expect(name);
            docs.push(page.doc());
            let page = PlanPage::new(&catalog, model, &cluster, &ask, &speed).expect(name);
            docs.push(page.doc());
        }
    }
    let model = catalog.model("qwen3-235b-a22b").expect("a model");
    let page = EverywherePage::new(&catalog, model, &ask, &speed).expect("a page");
    docs.push(page.doc());
    docs.push(backtest_all(&catalog).doc());
    docs
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for doc in pages() {
        for width in WIDTHS {
            keeps_to(&render_doc(&doc, Style::Plain, width), width);
        }
    }
}

#[test]
fn a_terminal_of_any_size_has_a_page() {
    let catalog = catalog();
    let page = ComboPage::new(&catalog, &quad(), &Ask::default(), &Roofline).expect("a page");
    let at = |width| render(&page, Style::Plain, width);
    assert_eq!(at(0), at(*WIDTHS.start()));
    assert_eq!(at(usize::MAX), at(*WIDTHS.end()));
}

/// The doc of one table.
fn doc_of(columns: Vec<Column>, rows: Vec<Row>) -> Doc {
    let table = Table {
        caption: String::new(),
        columns,
        rows,
    };
    Doc {
        kind: "Test",
        title: "t".into(),
        answer: Vec::new(),
        figures: Vec::new(),
        sections: vec![Section::new("t", "t", vec![Block::Table(table)])],
    }
}

/// A share stays on one line, whatever stands beside it.
#[test]
fn a_share_is_never_broken() {
    let columns = |titles: &[&str]| {
        let columns = titles.iter().map(|title| Column {
            title: (*title).to_owned(),
            align: Align::Left,
        });
        columns.collect::<Vec<_>>()
    };
    let words = || Cell::text("antidisestablishmentarianism-of-a-very-long-name".repeat(2));
    let cells = vec![
        words(),
        words(),
        Cell::Use { share: 0.82 },
        words(),
        words(),
    ];
    let page = doc_of(columns(&["A", "B", "Use", "D", "E"]), vec![Row::new(cells)]);
    let narrow = render_doc(&page, Style::Plain, 72);
    assert!(narrow.contains("82 %") && !narrow.contains('█'), "{narrow}");
    let cells = vec![Cell::text("a"), Cell::Use { share: 1.04 }];
    let page = doc_of(columns(&["A", "Use"]), vec![Row::new(cells)]);
    let wide = render_doc(&page, Style::Plain, 72);
    assert!(wide.contains("███████▶ 104 %"), "{wide}");
}

fn cell() -> impl Strategy<Value = Cell> {
    let share = (0.0..4.0_f64).prop_map(|share| Cell::Use { share });
    let rate = (0.01..90_000.0_f64).prop_map(|mid| Cell::Rate {
        estimate: Estimate {
            low: mid / 2.0,
            mid,
            high: mid * 2.0,
            evidence: Evidence::Extrapolated,
        },
    });
    prop_oneof![
        "[a-zé,/ -]{0,60}".prop_map(Cell::text),
        "[0-9]{1,4} (GiB|%|tok/s)".prop_map(Cell::text),
        share,
        rate,
        Just(Cell::Tier {
            tier: Tier::NotPractical
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_table_keeps_to_the_width(
        width in WIDTHS,
        columns in prop::collection::vec(("[A-Za-z ]{0,20}", any::<bool>()), 1..8),
        rows in prop::collection::vec(prop::collection::vec(cell(), 8), 0..5),
        note in "[a-z ]{0,200}",
    ) {
        let columns = columns.into_iter().map(|(title, right)| Column {
            title,
            align: if right { Align::Right } else { Align::Left },
        });
        let rows = rows.into_iter().map(|cells| Row::new(cells).note(note.clone()));
        let page = doc_of(columns.collect(), rows.collect());
        keeps_to(&render_doc(&page, Style::Plain, width), width);
    }
}

#[test]
fn colour_changes_no_word() {
    let catalog = catalog();
    let page = ComboPage::new(&catalog, &quad(), &Ask::default(), &Roofline).expect("a page");
    let mut plain = String::new();
    let coloured = render(&page, Style::Ansi, WIDTH);
    let mut letters = coloured.chars();
    while let Some(c) = letters.next() {
        if c == '\u{1b}' {
            letters.by_ref().find(|c| *c == 'm');
        } else {
            plain.push(c);
        }
    }
    assert_eq!(plain, render(&page, Style::Plain, WIDTH));
}
