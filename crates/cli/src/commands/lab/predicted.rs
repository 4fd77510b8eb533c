//! What the planner would have said of an answer.

use brigade_fit::evidence::Estimate;
use brigade_fit::model::Model;
use brigade_fit::verdict::{self, Ask};
use brigade_gguf::Source;

use crate::{planner, this_machine};

/// Tokens a second of one answer on this machine's CPU, or on the one memory of its chip.
///
/// Stages on one machine compute in turn, each with `threads` threads, so that a token costs what
/// it costs the whole model with as many; the hops between them are left out.
pub(super) fn decode_tok_s(
    source: &Source,
    threads: u32,
    context: u32,
) -> anyhow::Result<Option<Estimate>> {
    let catalog = planner::catalog(None)?;
    let model = Model::from_gguf(source.model(), &crate::model::name(source))?;
    let (mut machine, _) = this_machine::look(&catalog, Some(threads as usize));
    // GPUs come first and the processor's own memory last; the lab uses no discrete GPU.
    machine.pools.drain(..machine.pools.len().saturating_sub(1));
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
    Ok(verdict.decode_tok_s)
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
         ({low:.1} to {high:.1} in four of five cases, {}): {inside} its interval",
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
            "decode: 28.4 tok/s measured; the planner predicts 30.0 for this machine (20.0 to 41.0 in \
             four of five cases, extrapolated): inside its interval"
        );
        assert!(line(&predicted, 42.0).ends_with("outside its interval"));
    }
}
