//! Whatever number stands in a field of the catalog, there is a catalog or an error that says where,
//! and no part of the catalog is no number.

use std::collections::BTreeMap;

use brigade_fit::FitError;
use brigade_fit::catalog::Catalog;
use proptest::prelude::*;

const FILES: [(&str, &str); 5] = [
    ("models.toml", include_str!("../../../catalog/models.toml")),
    (
        "hardware.toml",
        include_str!("../../../catalog/hardware.toml"),
    ),
    ("links.toml", include_str!("../../../catalog/links.toml")),
    (
        "runtimes.toml",
        include_str!("../../../catalog/runtimes.toml"),
    ),
    ("names.toml", include_str!("../../../catalog/names.toml")),
];

/// The lines of a file that give a field a number.
fn numbers(text: &str) -> Vec<usize> {
    let is_number = |line: &str| {
        line.split_once(" = ")
            .is_some_and(|(_, value)| value.trim().parse::<f64>().is_ok())
    };
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| is_number(line))
        .map(|(index, _)| index)
        .collect()
}

/// The file with another number in a line, and the field that has it.
fn with(text: &str, at: usize, number: &str) -> (String, String) {
    let mut field = String::new();
    let lines = text.lines().enumerate().map(|(index, line)| {
        let Some((key, _)) = line.split_once(" = ").filter(|_| index == at) else {
            return format!("{line}\n");
        };
        key.clone_into(&mut field);
        format!("{key} = {number}\n")
    });
    (lines.collect(), field)
}

/// Whether a number of the catalog is none, by its debug form: strings stand in quotes there.
fn has_no_number(catalog: &Catalog) -> bool {
    let text = format!("{catalog:?}").replace("\\\"", "");
    text.split('"')
        .step_by(2)
        .flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric()))
        .any(|word| matches!(word, "NaN" | "inf"))
}

fn any_number() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop_oneof![Just("nan"), Just("inf"), Just("-inf"), Just("+nan")]
            .prop_map(str::to_owned),
        2 => any::<f64>().prop_map(|number| match number {
            number if number.is_nan() => "nan".to_owned(),
            number => format!("{number:?}"),
        }),
        2 => any::<i64>().prop_map(|number| number.to_string()),
        2 => (-2_i64..1000).prop_map(|number| number.to_string()),
        1 => prop_oneof![Just("0.0"), Just("-0.0"), Just("1e308"), Just("5e-324")]
            .prop_map(str::to_owned),
    ]
}

fn read(file: &str, text: String) -> Result<Catalog, FitError> {
    Catalog::from_files(&BTreeMap::from([(file.to_owned(), text)]))
}

#[test]
fn the_catalog_has_numbers_and_all_of_them_are() {
    for (file, text) in FILES {
        assert!(!numbers(text).is_empty(), "{file}");
        let catalog = read(file, text.to_owned()).expect("it is sound");
        assert!(!has_no_number(&catalog), "{file}");
    }
    let mut catalog = Catalog::embedded().expect("it is sound");
    catalog.fitted.decode.median_ape = f64::NAN;
    assert!(has_no_number(&catalog), "it would be seen");
}

#[test]
fn no_field_of_a_kind_takes_what_is_no_number() {
    let mut seen = std::collections::BTreeSet::new();
    for (file, text) in FILES {
        for at in numbers(text) {
            let (_, field) = with(text, at, "0");
            if !seen.insert((file, field.clone())) {
                continue;
            }
            for number in ["nan", "inf", "-inf"] {
                let (text, _) = with(text, at, number);
                let error = read(file, text).expect_err(&field).to_string();
                assert!(error.starts_with(&format!("{file}:")), "{error}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_number_gives_a_catalog_or_an_error(
        file in 0..FILES.len(),
        line in any::<prop::sample::Index>(),
        number in any_number(),
    ) {
        let (file, text) = FILES[file];
        let lines = numbers(text);
        let (text, field) = with(text, lines[line.index(lines.len())], &number);
        match read(file, text) {
            Ok(catalog) => prop_assert!(!has_no_number(&catalog), "{file}: {field} = {number}"),
            Err(error) => prop_assert!(error.to_string().starts_with(file), "{error}"),
        }
    }
}
