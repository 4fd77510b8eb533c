//! How wrong the predictor may be, on the catalog's measurements.

use std::sync::LazyLock;

use brigade_fit::calibrate::{backtest, calibrate, to_toml};
use brigade_fit::catalog::{Catalog, measurements};
use brigade_fit::page::{Accuracy, BacktestPage};
use brigade_fit::speed::fitted::{Fit, Fitted};

const MEASUREMENTS: &str = include_str!("../../../catalog/measurements.csv");

fn catalog() -> &'static Catalog {
    static CATALOG: LazyLock<Catalog> =
        LazyLock::new(|| Catalog::embedded().expect("the embedded catalog is sound"));
    &CATALOG
}

fn rows() -> Vec<measurements::Measurement> {
    measurements::read(MEASUREMENTS, "measurements.csv", &catalog().sources)
        .expect("the catalog's measurements are sound")
}

fn page() -> &'static BacktestPage {
    static PAGE: LazyLock<BacktestPage> = LazyLock::new(|| backtest(catalog(), &rows()));
    &PAGE
}

fn group(by: &str, name: &str, metric: &str) -> Accuracy {
    let mut groups = page().groups.iter();
    let found =
        groups.find(|group| (&*group.by, &*group.name, &*group.metric) == (by, name, metric));
    found
        .unwrap_or_else(|| panic!("no group {by} {name}"))
        .accuracy
}

/// What the README and the method page promise. The figures are of chips that were held out.
#[test]
fn predictions_are_as_good_as_promised() {
    let decode = page().decode;
    assert!(decode.n as f64 >= 0.85 * decode.of as f64, "{decode:?}");
    assert!(
        decode.median_ape <= 0.15 && decode.p90_ape <= 0.50,
        "{decode:?}"
    );
    assert!((0.75..=0.88).contains(&decode.coverage_80), "{decode:?}");
    let sized = group("file size", "stated", "decode");
    assert!(
        sized.median_ape <= 0.10 && sized.p90_ape <= 0.35,
        "{sized:?}"
    );
    let prefill = page().prefill;
    assert!(prefill.median_ape <= 0.25, "{prefill:?}");
    assert!((0.75..=0.88).contains(&prefill.coverage_80), "{prefill:?}");
}

/// The README's table is what comes out, as nearly as it is after some rows more or less: no
/// contributor of a row has to write there.
#[test]
fn the_readme_says_so() {
    let percent = |share: f64| match share * 100.0 {
        share if share < 9.95 => format!("{share:.1} %"),
        share => format!("{share:.0} %"),
    };
    let readme = include_str!("../../../README.md");
    let (decode, prefill) = (page().decode, page().prefill);
    let sized = group("file size", "stated", "decode");
    let of = |it: Accuracy| vec![it.n, it.of];
    for (name, counts, it) in [
        ("decode", of(decode), decode),
        ("decode, file size stated", vec![sized.n], sized),
        ("prefill", of(prefill), prefill),
    ] {
        let now: Vec<f64> = [it.median_ape, it.p90_ape, it.coverage_80].into();
        let shown = counts.iter().map(usize::to_string).collect::<Vec<_>>();
        let shares: Vec<String> = now.iter().copied().map(percent).collect();
        let line = format!(
            "| {name} | {} | {} |",
            shown.join(" of "),
            shares.join(" | ")
        );
        let begins = format!("| {name} | ");
        let said = readme.lines().find_map(|line| line.strip_prefix(&begins));
        let said = said.unwrap_or_else(|| panic!("the README lacks\n{line}"));
        let numbers: Vec<f64> = said
            .split(|c: char| !(c.is_ascii_digit() || c == '.'))
            .filter_map(|number| number.parse().ok())
            .collect();
        let counts = counts.iter().map(|count| *count as f64);
        let now: Vec<f64> = counts
            .chain(now.iter().map(|share| share * 100.0))
            .collect();
        let near = |(said, now): (&f64, &f64)| (said - now).abs() <= 0.05 * now + 0.6;
        assert!(
            numbers.len() == now.len() && numbers.iter().zip(&now).all(near),
            "the README has\n{begins}{said}\nand now it is\n{line}"
        );
    }
}

/// Every row is predicted or says which fact is missing.
#[test]
fn a_refusal_names_the_fact() {
    for row in &page().refused {
        let (fact, _) = row.reason.split_once(':').unwrap_or_default();
        let facts = [
            "params_b",
            "active_params_b",
            "quant",
            "machine",
            "mem_bandwidth_gbs",
            "split",
            "fp16_tflops",
            "impossible",
        ];
        assert!(facts.contains(&fact), "{}: {}", row.id, row.reason);
    }
}

/// What is said of a row is said of that row, not of one that has its id in another file.
#[test]
fn a_row_of_another_file_may_have_any_id() {
    let all = [&catalog().measurements[..], &catalog().wrong[..]].concat();
    let row = |id: &str| all.iter().find(|row| row.id == id).expect(id).clone();
    let known = [row("m0517"), row("m0726")];
    let page = backtest(catalog(), &known);
    assert!(page.refused[0].reason.contains("state the same"));
    assert!(page.worst[0].why.is_some(), "{:?}", page.worst[0]);
    let mine = |mut own: measurements::Measurement, id: &str| {
        own.id = id.to_owned();
        own
    };
    let others = [mine(row("m0035"), "m0517"), mine(row("m0035"), "m0726")];
    let page = backtest(catalog(), &others);
    assert!(page.refused.is_empty(), "{:?}", page.refused);
    assert!((page.worst[0].measured - 83.06).abs() < 1e-9);
    assert!(page.worst.iter().all(|miss| miss.why.is_none()));
    // Another rate is another row; in a folder's catalog it takes the place of the one with its id.
    let mut changed = row("m0517");
    changed.decode_tok_s = Some(14.0);
    assert!(backtest(catalog(), &[changed]).refused.is_empty());
    let line = |id: &str, rate: &str| {
        let mut lines = MEASUREMENTS.lines();
        let header = lines.next().unwrap_or_default();
        let old = lines.find(|line| line.starts_with(&format!("{id},")));
        format!("{header}\n{}\n", old.expect(id).replace(",0.12,", rate))
    };
    let wrong = |rate: &str| {
        let files = [("measurements.csv".to_owned(), line("m0517", rate))].into();
        let catalog = Catalog::from_files(&files).expect("it is sound");
        catalog.wrong.iter().any(|row| row.id == "m0517")
    };
    assert!(wrong(",0.12,") && !wrong(",14.5,"));
}

/// Neither the row nor another of its chip informs a prediction.
#[test]
fn no_row_informs_its_own_prediction() {
    let is_known = |row: &&measurements::Measurement| row.id == "m0035";
    let rows = rows();
    let row = rows.iter().find(is_known).unwrap();
    let honest = backtest(catalog(), std::slice::from_ref(row));
    let mut changed = catalog().clone();
    for row in &mut changed.measurements {
        if row.machine.contains("M4 Max") && !row.machine.contains("M5") {
            row.decode_tok_s = row.decode_tok_s.map(|rate| rate * 0.8);
        }
    }
    let other = backtest(&changed, std::slice::from_ref(row));
    assert_eq!(
        honest.worst[0].predicted.to_bits(),
        other.worst[0].predicted.to_bits()
    );
}

/// `cargo xtask calibrate` writes the file; a change of the catalog may make it stale.
#[test]
fn the_fit_is_that_of_this_catalog() {
    let numbers = |fitted: &Fitted| {
        let of_fit = |fit: &Fit| {
            let own = [
                fit.rows as f64,
                fit.median_ape,
                fit.p90_ape,
                fit.coverage_80,
            ];
            let factors = fit.parameter.iter().map(|factor| factor.value);
            own.into_iter().chain(factors).collect::<Vec<f64>>()
        };
        let widths = fitted.interval.iter().map(|interval| interval.factor);
        let fits = [of_fit(&fitted.decode), of_fit(&fitted.prefill)].concat();
        fits.into_iter().chain(widths).collect::<Vec<f64>>()
    };
    let fitted = calibrate(catalog());
    let (now, file) = (numbers(&fitted), numbers(&catalog().fitted));
    // Machines differ in the last bits of an exponential.
    let alike = now
        .iter()
        .zip(&file)
        .all(|(a, b)| (a - b).abs() <= 2e-3 * a.abs());
    assert!(
        alike && now.len() == file.len(),
        "run `cargo xtask calibrate`"
    );
    let files = [("speed.toml".to_owned(), to_toml(&fitted).unwrap())].into();
    assert!(Catalog::from_files(&files).unwrap().fitted == fitted);
}
