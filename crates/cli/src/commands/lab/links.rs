//! What `--link` says.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, bail};
use brigade_fit::catalog::Catalog;
use brigade_node::{LinkShape, Wiring};

use crate::planner;

/// What chance in shaped links begins with: the same lab has the same jitter every time.
const SEED: u64 = 1;

/// How the nodes of a lab are connected; none where nothing was said.
pub(super) fn wiring(texts: &[String], nodes: u32) -> anyhow::Result<Option<Wiring>> {
    if texts.is_empty() {
        return Ok(None);
    }
    let catalog = planner::catalog(None)?;
    let mut wiring = Wiring {
        nodes,
        seed: SEED,
        ..Wiring::default()
    };
    for text in texts {
        add(&mut wiring, &catalog, text).with_context(|| format!("--link {text}"))?;
    }
    Ok(Some(wiring))
}

fn add(wiring: &mut Wiring, catalog: &Catalog, text: &str) -> anyhow::Result<()> {
    let Some((pair, link)) = text.split_once(':') else {
        wiring.usual = Some(shape(catalog, text)?);
        return Ok(());
    };
    let pair = nodes(pair).context("write a pair as 1-2 or node-1-node-2")?;
    let there = 1..=wiring.nodes;
    if !there.contains(&pair.0) || !there.contains(&pair.1) {
        bail!("the nodes are 1 to {}", wiring.nodes);
    }
    if pair.0 == pair.1 {
        bail!("a node has no link to itself");
    }
    wiring.pairs.push((pair, shape(catalog, link)?));
    Ok(())
}

/// Two nodes, by their numbers or names.
fn nodes(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| {
        let text = text.trim();
        text.strip_prefix("node-").unwrap_or(text).parse().ok()
    };
    let mut dashes = text.match_indices('-').map(|(at, _)| at);
    dashes.find_map(|at| Some((number(&text[..at])?, number(&text[at + 1..])?)))
}

/// A link of the catalog, figures, or a link with other figures: `10gbe,jitter=20us`.
fn shape(catalog: &Catalog, text: &str) -> anyhow::Result<LinkShape> {
    let text = text.trim();
    let (name, figures) = text.split_once(',').unwrap_or((text, ""));
    if name.contains('=') {
        return Ok(LinkShape::default().with(text)?);
    }
    let link = &catalog.link(name.trim())?.link;
    let known = LinkShape {
        rtt: Duration::from_secs_f64(link.latency_ms * 2.0 / 1e3),
        bandwidth_bit_s: Some(link.bandwidth_gb_s * 8e9),
        jitter: Duration::ZERO,
    };
    if figures.is_empty() {
        return Ok(known);
    }
    Ok(known.with(figures)?)
}

/// The links as people read them, on lines of their own.
pub(super) fn told(wiring: Option<&Wiring>) -> String {
    let Some(wiring) = wiring else {
        return String::new();
    };
    let usual = wiring
        .usual
        .iter()
        .map(|shape| format!("\nlinks: {}", figures(shape)));
    let pairs = wiring
        .pairs
        .iter()
        .map(|((a, b), shape)| format!("\nlink of node-{a} and node-{b}: {}", figures(shape)));
    usual.chain(pairs).collect()
}

fn figures(shape: &LinkShape) -> String {
    let ms = |time: Duration| format!("{} ms", (time.as_secs_f64() * 1e6).round() / 1e3);
    let mut text = format!("round trip {}", ms(shape.rtt));
    if !shape.jitter.is_zero() {
        let _ = write!(text, " ± {} each way", ms(shape.jitter));
    }
    if let Some(rate) = shape.bandwidth_bit_s {
        let _ = write!(text, ", {} Gbit/s", (rate / 1e6).round() / 1e3);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(texts: &[&str]) -> String {
        let texts: Vec<_> = texts.iter().map(ToString::to_string).collect();
        told(wiring(&texts, 4).unwrap().as_ref()).trim().to_owned()
    }

    fn complaint(text: &str) -> String {
        format!("{:#}", wiring(&[text.to_owned()], 4).unwrap_err())
    }

    #[test]
    fn figures_names_and_pairs() {
        assert_eq!(said(&[]), "");
        assert_eq!(
            said(&["rtt=0.3ms,bw=40gbit,jitter=0.05ms"]),
            "links: round trip 0.3 ms ± 0.05 ms each way, 40 Gbit/s"
        );
        assert_eq!(said(&["tb5"]), "links: round trip 0.6 ms, 24 Gbit/s");
        assert_eq!(
            said(&["10gbe,jitter=20us", "node-1-node-3:wifi6", "2-4:rtt=5ms"]),
            "links: round trip 0.2 ms ± 0.02 ms each way, 9.36 Gbit/s\n\
             link of node-1 and node-3: round trip 4 ms, 0.6 Gbit/s\n\
             link of node-2 and node-4: round trip 5 ms"
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        assert_eq!(
            complaint("rtt=soon"),
            "--link rtt=soon: 'soon' is no time from 0 to 10 s: write 0.3ms, 300us or 1s"
        );
        assert_eq!(complaint("1-5:tb5"), "--link 1-5:tb5: the nodes are 1 to 4");
        assert_eq!(
            complaint("2-2:tb5"),
            "--link 2-2:tb5: a node has no link to itself"
        );
        assert_eq!(
            complaint("a:tb5"),
            "--link a:tb5: write a pair as 1-2 or node-1-node-2"
        );
        let unknown = complaint("tb9");
        assert!(
            unknown.starts_with("--link tb9: ") && unknown.contains("tb5"),
            "{unknown}"
        );
    }
}
