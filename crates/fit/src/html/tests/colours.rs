//! Words can be read in light and dark: WCAG's contrast of 4.5 between each ink and its ground.

use super::super::STYLE;

/// Ink and what it stands on.
const PAIRS: [(&str, &str); 14] = [
    ("ink", "bg"),
    ("ink", "card"),
    ("ink", "tint"),
    ("soft", "bg"),
    ("soft", "card"),
    ("accent", "bg"),
    ("accent", "card"),
    ("ok", "okbg"),
    ("mid", "midbg"),
    ("no", "nobg"),
    ("unk", "unkbg"),
    ("ok", "card"),
    ("mid", "card"),
    ("no", "card"),
];

#[test]
fn words_stand_out_in_light_and_dark() {
    let light = scheme(":root{");
    let dark = scheme("@media(prefers-color-scheme:dark){:root{");
    for (name, scheme) in [("light", &light), ("dark", &dark)] {
        for (ink, ground) in PAIRS {
            let contrast = contrast(colour(scheme, ink), colour(scheme, ground));
            assert!(
                contrast >= 4.5,
                "{name}: {ink} on {ground} has {contrast:.2}"
            );
        }
        // What only divides or fills needs 3, where something depends on it.
        for fill in ["f0", "f1", "f2", "f3", "f4", "f5"] {
            let contrast = contrast(colour(scheme, fill), colour(scheme, "card"));
            assert!(contrast >= 3.0, "{name}: {fill} has {contrast:.2}");
        }
    }
}

/// The variables of a scheme.
fn scheme(start: &str) -> Vec<(&'static str, &'static str)> {
    let (_, rest) = STYLE.split_once(start).expect("the scheme is there");
    let (block, _) = rest.split_once('}').expect("the scheme ends");
    let all = block.split(';').filter_map(|line| line.split_once(':'));
    all.filter_map(|(name, value)| Some((name.strip_prefix("--")?, value)))
        .collect()
}

fn colour(scheme: &[(&str, &str)], name: &str) -> [f64; 3] {
    let (_, value) = scheme
        .iter()
        .find(|(own, _)| *own == name)
        .unwrap_or_else(|| panic!("no colour {name}"));
    let digits = value.trim_start_matches('#');
    // One digit a part stands for two alike.
    let step = digits.len() / 3;
    let part = |index: usize| {
        let text = &digits[index * step..(index + 1) * step];
        let number = u8::from_str_radix(text, 16).expect("hexadecimal");
        f64::from(if step == 1 { number * 17 } else { number })
    };
    [part(0), part(1), part(2)]
}

/// As in the Web Content Accessibility Guidelines 2.2.
fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let luminance = |colour: [f64; 3]| {
        let [r, g, b] = colour.map(|part| {
            let part = part / 255.0;
            if part <= 0.040_45 {
                part / 12.92
            } else {
                ((part + 0.055) / 1.055).powf(2.4)
            }
        });
        0.2126 * r + 0.7152 * g + 0.0722 * b
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}
