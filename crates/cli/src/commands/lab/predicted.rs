//! What the planner would have said of an answer.

use brigade_fit::evidence::Estimate;
use brigade_fit::model::Model;
use brigade_fit::placement::HOP_SOFTWARE_MS;
use brigade_fit::speed::calibration::Calibration;
use brigade_fit::verdict::{self, Ask};
use brigade_gguf::Source;
use brigade_node::Wiring;

use crate::control::Running;
use crate::model::Engine;
use crate::{about, planner, this_machine};

/// A prediction, and what it was made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Predicted {
    /// Tokens a second of one answer.
    pub(crate) decode_tok_s: Estimate,
    /// Seconds of a token between the stages.
    pub(super) hops_s: f64,
    /// By how much models that ran here were slower than their parts.
    pub(super) factor: f64,
}

impl Predicted {
    /// What the stages took for a token in this measurement, against what their parts add up to.
    pub(crate) fn ratio(&self, measured_tok_s: f64) -> f64 {
        let stages = |tok_s: f64| (1.0 / tok_s - self.hops_s).max(1e-6);
        self.factor * stages(measured_tok_s) / stages(self.decode_tok_s.mid)
    }
}

/// Tokens a second of one answer of stages on this machine's CPU, or on the one memory of its chip.
///
/// Stages on one machine compute in turn, each with `threads` threads, so that a token costs what
/// it costs the whole model with as many, and the hops between them. What llama-rpc makes of it
/// the planner does not know. What a calibration knows of the model `apart` is left out.
pub(super) fn decode_tok_s(
    source: &Source,
    threads: u32,
    context: u32,
    running: &Running,
    wiring: Option<&Wiring>,
    apart: Option<&str>,
) -> anyhow::Result<Option<Predicted>> {
    if running.engine == Engine::LlamaRpc {
        return Ok(None);
    }
    let catalog = planner::catalog(None)?;
    let model = Model::from_gguf(source.model(), &crate::model::name(source))?;
    let facts = about::facts(&catalog, Some(threads as usize));
    let (mut machine, _) = this_machine::machine(&facts, &catalog);
    // What was calibrated is the fastest device.
    let only = machine.pools.len() == 1;
    // GPUs come first and the processor's own memory last; the lab uses no discrete GPU.
    machine.pools.drain(..machine.pools.len().saturating_sub(1));
    if let ([pool], true) = (&mut machine.pools[..], only) {
        let known = about::calibration(&brigade_node::home_dir()?, &facts, threads);
        pool.calibration = known.map(|own| match apart {
            Some(model) => own.without(model),
            None => own,
        });
    }
    let calibration = machine
        .pools
        .first()
        .and_then(|pool| pool.calibration.as_ref());
    let step_s = calibration.map_or(0.0, |own| own.step_ms / 1e3);
    let factor = calibration.map_or(1.0, Calibration::factor);
    let ask = Ask {
        context,
        quant: model.quants.first().map(|quant| quant.name.clone()),
        ..Ask::default()
    };
    let verdict = verdict::assess(
        &model,
        &planner::alone(machine),
        &ask,
        &planner::speed(&catalog),
    )?;
    let stages = running.stages.len() as u32;
    let hops_s = hops_s(stages, model.hidden, wiring) + f64::from(stages.max(1) - 1) * step_s;
    Ok(verdict.decode_tok_s.map(|whole| Predicted {
        decode_tok_s: after(whole, hops_s),
        hops_s,
        factor,
    }))
}

/// Seconds between the stages of a token, the first of which lies on node 1, the second on node 2:
/// by the planner's rule, a hidden state from each to the next, and a token back to the first.
fn hops_s(stages: u32, hidden: u32, wiring: Option<&Wiring>) -> f64 {
    if stages < 2 {
        return 0.0;
    }
    let hidden_bits = f64::from(hidden) * 32.0;
    let there = (1..stages).map(|node| (node, node + 1, hidden_bits));
    let hops = there.chain([(stages, 1, 0.0)]);
    hops.map(|(from, to, bits)| {
        let shape = wiring.and_then(|wiring| wiring.between(from, to));
        // The software's part is that of loopback.
        let shape = shape.unwrap_or_default();
        let rate = shape.bandwidth_bit_s.unwrap_or(f64::INFINITY);
        shape.rtt.as_secs_f64() / 2.0 + HOP_SOFTWARE_MS / 1e3 + bits / rate
    })
    .sum()
}

/// A speed with so many seconds more for each token.
fn after(speed: Estimate, seconds: f64) -> Estimate {
    let slower = |tok_s: f64| 1.0 / (1.0 / tok_s + seconds);
    Estimate {
        low: slower(speed.low),
        mid: slower(speed.mid),
        high: slower(speed.high),
        ..speed
    }
}

/// A line of prediction against measurement.
pub(super) fn line(predicted: &Estimate, measured_tok_s: f64) -> String {
    let Estimate {
        low,
        mid,
        high,
        evidence,
    } = predicted;
    let inside = if (*low..=*high).contains(&measured_tok_s) {
        "inside"
    } else {
        "outside"
    };
    format!(
        "decode: {measured_tok_s:.1} tok/s measured; the planner predicts {mid:.1} for this machine \
         and its links ({low:.1} to {high:.1} in four of five cases, {}): {inside} its interval",
        evidence.name()
    )
}

#[cfg(test)]
mod tests {
    use brigade_fit::evidence::Evidence;

    use super::*;

    #[test]
    fn both_figures_and_how_one_is_known() {
        let predicted = Estimate {
            low: 20.0,
            mid: 30.0,
            high: 41.04,
            evidence: Evidence::Extrapolated,
        };
        assert_eq!(
            line(&predicted, 28.44),
            "decode: 28.4 tok/s measured; the planner predicts 30.0 for this machine and its links (20.0 \
             to 41.0 in four of five cases, extrapolated): inside its interval"
        );
        assert!(line(&predicted, 42.0).ends_with("outside its interval"));
    }

    /// Whatever had been known before, the ratio is to the bare parts.
    #[test]
    fn a_measurement_is_compared_with_the_parts_of_the_stages() {
        let tok_s = |seconds: f64| 1.0 / seconds;
        let predicted = |factor: f64| Predicted {
            decode_tok_s: Estimate {
                low: 0.0,
                mid: tok_s(0.010 * factor + 0.002),
                high: 0.0,
                evidence: Evidence::MeasuredNear,
            },
            hops_s: 0.002,
            factor,
        };
        for factor in [1.0, 1.1, 0.9] {
            let ratio = predicted(factor).ratio(tok_s(0.0125 + 0.002));
            assert!((ratio - 1.25).abs() < 1e-9, "{ratio}");
        }
    }

    #[test]
    fn a_token_takes_its_hops() {
        // Two hops of 2,048 bytes and one back, over loopback.
        assert!((hops_s(3, 512, None) - 3.0 * 0.12e-3).abs() < 1e-12);
        assert!(hops_s(1, 512, None).abs() < 1e-12);
        let usual = brigade_node::LinkShape::default()
            .with("rtt=2ms,bw=16.384mbit")
            .unwrap();
        let wiring = Wiring {
            nodes: 3,
            usual: Some(usual),
            pairs: vec![((1, 3), usual.with("rtt=10ms").unwrap())],
            ..Wiring::default()
        };
        // A millisecond on the way and one of transmission, twice, then five back.
        let expected = 2.0 * 2.0e-3 + 5.0e-3 + 3.0 * 0.12e-3;
        assert!((hops_s(3, 512, Some(&wiring)) - expected).abs() < 1e-12);
        let estimate = Estimate {
            low: 50.0,
            mid: 100.0,
            high: 200.0,
            evidence: Evidence::Estimated,
        };
        assert!((after(estimate, 0.01).mid - 50.0).abs() < 1e-9);
    }
}
