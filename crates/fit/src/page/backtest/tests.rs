use super::*;
use crate::text::{self, Style};

fn page(decode: Accuracy, prefill: Accuracy) -> BacktestPage {
    BacktestPage {
        schema: "brigade.backtest/1",
        decode,
        prefill,
        groups: Vec::new(),
        worst: Vec::new(),
        refused: Vec::new(),
    }
}

fn of(n: usize, of: usize) -> Accuracy {
    Accuracy {
        n,
        of,
        median_ape: 0.071,
        p90_ape: 0.23,
        coverage_80: 1.0,
    }
}

#[test]
fn a_rate_that_no_row_states_is_not_spoken_of() {
    let shown = |page: &BacktestPage| text::render(page, Style::Plain, text::WIDTH);
    let decode = shown(&page(of(1, 1), Accuracy::default()));
    assert!(!decode.contains("refill"), "{decode}");
    assert!(decode.contains(" over 1 row; "), "{decode}");
    let prefill = shown(&page(Accuracy::default(), of(2, 2)));
    assert!(!prefill.contains("ecode"), "{prefill}");
    assert!(
        prefill.contains(" over 2 rows; ") && prefill.contains("  of prefill\n"),
        "{prefill}"
    );
    let both = shown(&page(of(478, 536), of(1, 2)));
    for part in [
        " over 478 of 536 rows; ",
        "Error of decode",
        "Error of prefill",
        "  of decode, 100 % of prefill\n",
    ] {
        assert!(both.contains(part), "{part}: {both}");
    }
}

#[test]
fn nothing_is_made_of_rows_without_a_prediction() {
    let none = Accuracy {
        of: 3,
        ..Accuracy::default()
    };
    let shown = text::render(&page(none, Accuracy::default()), Style::Plain, text::WIDTH);
    assert!(shown.contains("None of the rows is predicted."), "{shown}");
    assert!(shown.contains("0 of 3"), "{shown}");
    assert!(!shown.contains("0 %  "), "{shown}");
}
