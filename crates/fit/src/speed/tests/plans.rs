//! A plan is predicted from a model's tensors, a measured row from what it states: what was tested on
//! rows holds for plans only where both come to the same.

use super::*;
use crate::catalog::measurements::Measurement;
use crate::cluster::Cluster;
use crate::machine::Machine;
use crate::model::Model;
use crate::rows::{Features, Reader};
use crate::verdict::{Ask, Verdict, assess};

/// The formula alone, without what was measured.
struct Formula(SpeedModel<'static>);

impl Speed for Formula {
    fn step_s(&self, pool: &Pool, runtime: &str, work: &Work) -> Result<f64, FitError> {
        self.0.step_s(pool, runtime, work)
    }

    fn overlap(&self, pools: usize, batches: f64) -> f64 {
        self.0.overlap(pools, batches)
    }

    fn around(&self, mid: f64, _rate: Rate, _setting: &Setting) -> Estimate {
        Estimate {
            low: mid,
            mid,
            high: mid,
            evidence: Evidence::Estimated,
        }
    }

    fn basis(&self, _rate: Rate, _setting: &Setting) -> Option<String> {
        None
    }
}

/// A row that a plan can be made for: one processor, a model and a quantization of the catalog.
struct Case {
    features: Features,
    model: &'static Model,
    machine: Machine,
    quant: &'static Quantization,
}

impl Case {
    fn of(row: &Measurement) -> Option<Self> {
        let features = Reader::new(catalog()).read(row).ok()?;
        let model = catalog().model(features.facts.model.as_ref()?).ok()?;
        let device = features.chip.device.clone()?;
        let quant = model.quants.iter().find(|quant| {
            let engine = Engine::of(quant.format.runtime(), features.decode.family);
            quants::parse(&quant.name) == Some(features.quant) && engine == features.engine
        })?;
        if row.nodes > 1 || features.gpus > 1.0 || features.decode.spilled > 0.0 {
            return None;
        }
        let gib = features.chip.memory_gib.map_or(512, |gib| gib as u64);
        let pool = catalog().pool(&device, Some(gib << 30))?;
        Some(Self {
            features,
            model,
            quant,
            machine: Machine {
                id: device.clone(),
                name: device,
                pools: vec![pool],
            },
        })
    }

    fn verdict(&self, context: f64) -> Verdict {
        let ask = Ask {
            quant: Some(self.quant.name.clone()),
            format: Some(self.quant.format),
            context: context.round() as u32,
            ..Ask::default()
        };
        let cluster = Cluster::alone(self.machine.clone());
        let formula = Formula(SpeedModel::new(catalog()));
        assess(self.model, &cluster, &ask, &formula).unwrap()
    }
}

#[test]
fn decode_of_plans_is_that_of_rows() {
    let values = catalog().fitted.decode_values();
    let mut seen = 0;
    for row in &catalog().measurements {
        let Some(case) = Case::of(row) else { continue };
        let Some(plan) = case.verdict(case.features.depth).decode_tok_s else {
            continue;
        };
        let of_row = 1e3 / case.features.decode_sum().ms(&values);
        let off = (plan.mid / of_row).ln().abs();
        assert!(
            off < 0.06,
            "{} {}: {} and {of_row}",
            row.id,
            row.model,
            plan.mid
        );
        seen += 1;
    }
    assert!(seen > 200, "{seen}");
}

#[test]
fn prefill_of_plans_is_that_of_rows() {
    let values = catalog().fitted.prefill_values();
    let mut seen = 0;
    for row in &catalog().measurements {
        // A build without what the chip has for matrices, which plans count on.
        if row.prefill_tok_s.is_none() || row.id == "m0056" {
            continue;
        }
        let Some(case) = Case::of(row) else { continue };
        let (Ok((_, tokens)), Some(sum)) = (&case.features.prefill, case.features.prefill_sum())
        else {
            continue;
        };
        let Some(plan) = case.verdict(*tokens).prefill_tok_s else {
            continue;
        };
        let of_row = 1e3 / sum.ms(&values);
        let off = (plan.mid / of_row).ln().abs();
        assert!(
            off < 0.12,
            "{} {}: {} and {of_row}",
            row.id,
            row.model,
            plan.mid
        );
        seen += 1;
    }
    assert!(seen > 50, "{seen}");
}
