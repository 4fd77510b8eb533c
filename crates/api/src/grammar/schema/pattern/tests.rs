use std::collections::BTreeSet;

use proptest::prelude::*;
use regex::Regex;
use serde_json::json;

use super::body;
use crate::grammar::{Grammar, Thought, derive::derive};

/// Strings that a pattern's rule derives, as JSON readers have them.
fn strings(pattern: &str, seeds: std::ops::Range<u64>) -> Vec<String> {
    let mut grammar = Grammar::new();
    let schema = json!({"type": "string", "pattern": pattern});
    let root = grammar.schema(&schema).unwrap();
    let text = grammar.finish(&root, Thought::None);
    seeds
        .map(|seed| derive(&text, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
        .map(|json| {
            serde_json::from_str(&json).unwrap_or_else(|error| panic!("{pattern}: {json}: {error}"))
        })
        .collect()
}

/// All that a pattern of few strings allows comes out, and nothing else.
#[test]
fn just_what_a_pattern_allows_comes_out() {
    for (pattern, allowed) in [
        ("^(a|b)c?$", &["a", "b", "ac", "bc"][..]),
        ("^x$|^yy$", &["x", "yy"]),
        ("^(?:ab){1,2}$", &["ab", "abab"]),
        (r#"^["\\/]$"#, &["\"", "\\", "/"]),
        (r"^[\n\t]\x41\u00e9$", &["\nAé", "\tAé"]),
        ("^(?<year>1|2)-$", &["1-", "2-"]),
        ("^$", &[""]),
        ("^a{0}(b|)$", &["", "b"]),
    ] {
        let found: BTreeSet<String> = strings(pattern, 1..200).into_iter().collect();
        let allowed: BTreeSet<String> = allowed.iter().map(|&text| text.to_owned()).collect();
        assert_eq!(found, allowed, "{pattern}");
    }
}

/// `\d` and `\w` are ASCII's, and `.` is not the end of a line.
#[test]
fn classes_are_those_of_ecmascript() {
    let others = |pattern: &str, wrong: fn(char) -> bool| {
        for text in strings(pattern, 1..400) {
            assert!(!text.contains(wrong), "{pattern}: {text:?}");
        }
    };
    others(r"^\d+$", |c| !c.is_ascii_digit());
    others(r"^\w+$", |c| !(c.is_ascii_alphanumeric() || c == '_'));
    others(r"^\W+$", |c| c.is_ascii_alphanumeric() || c == '_');
    others(r"^\D+$", |c| c.is_ascii_digit());
    others(r"^\s+$", |c| !c.is_whitespace() && c != '\u{feff}');
    // U+0085 is white space for Unicode and not for ECMAScript.
    others(r"^\S+$", |c| c.is_whitespace() && c != '\u{85}');
    others(r"^.+$", |c| "\n\r\u{2028}\u{2029}".contains(c));
    others(r"^[^a-y\s]+$", |c| {
        c.is_whitespace() || ('a'..='y').contains(&c)
    });
}

#[test]
fn what_cannot_be_kept_exactly_is_refused() {
    for (pattern, reason) in [
        ("a(?!b)", "look-around"),
        (r"(a)\1", "backreferences"),
        (r"\bword", r"'\b' is supported only where"),
        ("a^b", "'^' is supported only where"),
        ("(^a|b)", "'^' is supported only where"),
        ("(?i)a", "flags"),
        ("(?i:a)", "flags"),
        (r"\p{L}", r"'\p{L}' is not supported"),
        ("(a*)*", "repeats what may be empty"),
        ("a{,3}", "decimal"),
        ("a{ 2}", "'{ 2}' is no repetition"),
        ("a**", "repeats a repetition"),
        ("[[:alpha:]]", "the class"),
        ("[a&&b]", "the class"),
        ("[]a]", "the class"),
        ("[--a]", "the class"),
        (r"\a", "escape"),
        (r"\x{41}", "escape"),
        ("[a", "unclosed"),
        ("(a{100}){100}", "its repetitions make more than 1000 parts"),
        ("^\\u0001$", "characters that are not written"),
    ] {
        let error = body(pattern).expect_err(pattern);
        assert!(error.contains(reason), "{pattern}: {error}");
    }
    assert!(body(&"a".repeat(3000)).is_err());
    assert!(body(&("(".repeat(500) + &")".repeat(500))).is_err());
}

fn patterns() -> impl Strategy<Value = String> {
    const ATOMS: &[&str] = &[
        "a",
        "é",
        r"\.",
        "[a-c]",
        r#"[^x"]"#,
        r"[^\\]",
        r"\d",
        r"\w",
        ".",
        r"\n",
        "\"",
        r"\\",
        "/",
        "-",
        "[-0-9]",
        r"[\w.]",
        "\u{1F600}",
    ];
    const TIMES: &[&str] = &["", "", "?", "*", "+", "{2}", "{1,3}", "{2,}", "*?"];
    let part = proptest::sample::select(ATOMS).prop_map(str::to_owned);
    let inner = part.prop_recursive(3, 20, 4, |inner| {
        let many = prop::collection::vec((inner, proptest::sample::select(TIMES)), 1..4);
        (many, any::<bool>()).prop_map(|(parts, either)| {
            let parts: Vec<_> = parts.into_iter().map(|(p, times)| p + times).collect();
            format!("({})", parts.join(if either { "|" } else { "" }))
        })
    });
    let anchored = (any::<bool>(), inner, any::<bool>()).prop_map(|(begins, inner, ends)| {
        let begin = if begins { "^" } else { "" };
        format!("{begin}{inner}{}", if ends { "$" } else { "" })
    });
    prop::collection::vec(anchored, 1..3).prop_map(|ways| ways.join("|"))
}

/// llama.cpp took a minute for one token of sixty of these.
#[test]
fn many_parts_that_may_be_left_out_do_not_follow_each_other() {
    for part in ["[a-y]?", "[a-y]*", "(a|b?)", "([a-y]*)", "x{0,3}"] {
        assert!(body(&format!("^{}$", part.repeat(6))).is_ok(), "{part}");
        let refused = body(&format!("^{}$", part.repeat(7))).unwrap_err();
        assert_eq!(
            refused,
            "more than 6 parts that may be left out follow each other"
        );
    }
    // Also where they stand in groups, at the seams of repetitions, or around the whole.
    for pattern in [
        "^(a?b?c?d?)(a?b?c?d?)$",
        "^(a?b?c?xd?e?f?g?){2}h?$",
        "^(a?b?c?d?xe?f?g?)+$",
        "a?b?c?d?e?f?",
    ] {
        assert!(body(pattern).is_err(), "{pattern}");
    }
    // What people write is nothing of the kind.
    for pattern in [
        r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$",
        r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$",
        r"^\+?\d{1,3}[ -]?\(?\d{1,4}\)?[ -]?\d{1,4}[ -]?\d{1,9}$",
        r"^(\w+\s?)+$",
        r"^https?://[a-z0-9.-]+(:\d+)?(/[^ ]*)?$",
        r"^([a-z]+, ){1,20}[a-z]+$",
    ] {
        assert!(body(pattern).is_ok(), "{pattern}: {:?}", body(pattern));
    }
}

proptest! {
    #[test]
    fn what_comes_out_matches(pattern in patterns(), seed in 0_u64..1_000_000) {
        if body(&pattern).is_ok() {
            let regex = Regex::new(&pattern).unwrap();
            for text in strings(&pattern, seed..seed + 8) {
                prop_assert!(regex.is_match(&text), "{pattern} does not match {text:?}");
            }
        }
    }
}
