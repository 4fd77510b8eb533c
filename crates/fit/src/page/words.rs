//! Sentences that several pages say.

use super::format::{brief, count, percent, sentence, tokens};
use crate::evidence::Estimate;
use crate::verdict::{Split, Tier, Verdict};

/// `about 18 tok/s (14–23, estimated)`.
pub(super) fn rate(estimate: &Estimate) -> String {
    format!(
        "about {} tok/s ({}–{}, {})",
        brief(estimate.mid),
        brief(estimate.low),
        brief(estimate.high),
        estimate.evidence.name()
    )
}

/// `about 18 tok/s with 8,192 tokens in context (14–23, estimated)`.
pub(super) fn rate_at(estimate: &Estimate, context: u32) -> String {
    let tokens = tokens(context);
    rate(estimate).replacen(" (", &format!(" with {tokens} in context ("), 1)
}

/// A verdict in one sentence.
pub(super) fn verdict(verdict: &Verdict) -> String {
    let quant = if verdict.quant.is_empty() {
        "an unknown quantization".to_owned()
    } else {
        format!(
            "{} ({})",
            verdict.quant,
            super::format::gb(verdict.weights_bytes)
        )
    };
    let binding = verdict
        .binding_node
        .as_deref()
        .unwrap_or("the binding node");
    let share = verdict.utilization.map(percent).unwrap_or_default();
    let context = super::format::tokens(verdict.load.context);
    match verdict.tier {
        Tier::Comfortable => format!(
            "Yes, comfortably: {} at {quant} with {context} of context takes {share} of effective memory on {binding}.",
            verdict.name
        ),
        Tier::Borderline if verdict.max_context.unwrap_or(0) < verdict.load.context => {
            let streams = match verdict.load.sequences {
                1 => String::new(),
                streams => format!(" for each of {streams} streams"),
            };
            let most = verdict.max_context.filter(|most| *most > 0);
            let most = most.map_or_else(
                || "fewer streams".to_owned(),
                |most| format!("at most {}", super::format::tokens(most)),
            );
            format!(
                "Borderline: {} at {quant} does not fit with {context} of context{streams}, but with {most}.",
                verdict.name
            )
        }
        Tier::Borderline => format!(
            "Borderline: {} at {quant} with {context} of context takes {share} of effective memory on {binding}.",
            verdict.name
        ),
        Tier::NotPractical => format!(
            "No: {} at {quant} does not fit, whichever way it is split.",
            verdict.name
        ),
        Tier::Unknown => {
            let reasons = verdict.reasons.iter();
            let reasons = reasons.map(|why| unknown(&verdict.name, why));
            let reasons: Vec<String> = reasons.map(|why| sentence(&why)).collect();
            format!("Unknown: {}", reasons.join(" "))
        }
    }
}

/// Why a model's verdict is unknown, in words that stand beside its name.
pub(super) fn unknown(name: &str, why: &str) -> String {
    let fact = why
        .strip_prefix(name)
        .and_then(|why| why.strip_prefix(" has no known "));
    match fact.map(|fact| fact.trim_end_matches('.')) {
        Some("architecture") => "its architecture is not known to this catalog.".into(),
        Some(fact) => format!("not known of it: {fact}."),
        None => why.to_owned(),
    }
}

/// Tokens a second that people read, about.
const READING: f64 = 5.0;

/// One stream's rate and, where several are asked for, theirs, as clauses.
pub(super) fn rates(verdict: &Verdict) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(all) = &verdict.together_tok_s {
        said.push(format!(
            "{} streams together decode {}",
            verdict.load.sequences,
            rate(all)
        ));
    }
    if let Some(one) = &verdict.decode_tok_s {
        let slow = if one.mid < READING {
            ", slower than one reads"
        } else {
            ""
        };
        let one = rate_at(one, verdict.load.context);
        said.push(format!("one stream decodes {one}{slow}"));
    }
    said
}

/// `4 nodes`, `one machine`.
pub(super) fn nodes(nodes: usize) -> String {
    if nodes == 1 {
        "one machine".into()
    } else {
        count(nodes, "node")
    }
}

/// A split's name for people.
pub(super) fn split(split: Split) -> &'static str {
    match split {
        Split::OneNode => "one node",
        Split::Replicas => "replicas",
        Split::Pipeline => "layer pipeline",
        Split::Tensor => "tensor parallel",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_said_of_the_model() {
        let words = |why| unknown("Foo 7B", why);
        assert_eq!(
            words("Foo 7B has no known architecture."),
            "its architecture is not known to this catalog."
        );
        assert_eq!(
            words("Foo 7B has no known num_hidden_layers."),
            "not known of it: num_hidden_layers."
        );
        let other = "No size of Foo 7B is known at 4 bits a weight or more.";
        assert_eq!(words(other), other);
    }
}
