//! Which split a verdict is about.

use super::{Ask, LEAST_CONTEXT};
use crate::FitError;
use crate::cluster::{Cluster, Links};
use crate::memory::Load;
use crate::model::{Model, Quantization};
use crate::placement::{COMFORTABLE, Field, Level, Objective, Plan, Timing};
use crate::speed::Speed;

/// Tokens in whose steps a cache grows.
const STEP: u32 = 256;

/// A plan with the field that it stands on.
pub(crate) struct Choice<'a> {
    pub(crate) field: Field<'a>,
    pub(crate) plan: Plan,
    /// The share of effective memory that it takes.
    pub(crate) takes: f64,
}

impl Choice<'_> {
    pub(crate) fn token_s(&self, speed: &dyn Speed) -> Result<f64, FitError> {
        let Self { field, plan, .. } = self;
        Timing { field, plan, speed }.token_s()
    }
}

/// The ways to hold a model: each kind of node alone, and all of them together.
pub(crate) struct Ways<'a> {
    alone: Vec<Field<'a>>,
    all: Option<Field<'a>>,
}

impl<'a> Ways<'a> {
    pub(crate) fn new(
        model: &'a Model,
        quant: &'a Quantization,
        cluster: &'a Cluster,
        load: Load,
        ask: &Ask,
    ) -> Result<Self, FitError> {
        let whole = Field::new(model, quant, cluster, load, ask.measured)?;
        let mut alone: Vec<Field> = Vec::new();
        for node in 0..cluster.nodes.len() {
            let known = |other: &Field| {
                other
                    .only()
                    .is_some_and(|known| whole.hosts[known].alike(&whole.hosts[node]))
            };
            if !alone.iter().any(known) {
                let mut one = whole.under(load);
                one.alone(node);
                alone.push(one);
            }
        }
        let together = cluster.nodes.len() > 1 && cluster.links != Links::Unnamed;
        Ok(Self {
            alone,
            all: together.then_some(whole),
        })
    }

    fn each(&self) -> impl Iterator<Item = &Field<'a>> {
        self.alone.iter().chain(&self.all)
    }

    /// Whether the model can be held within the limits at this context.
    fn hold(&self, context: u32) -> bool {
        self.each().any(|field| {
            let load = Load {
                context,
                ..field.costs.load
            };
            field.under(load).holds(Level::Limit)
        })
    }

    /// Whether the weights and the least useful context stay within the limits.
    pub(crate) fn least(&self, own: u32) -> bool {
        self.hold(LEAST_CONTEXT.min(own))
    }

    /// The largest context within the limits, up to the model's own.
    pub(crate) fn largest(&self, own: u32) -> Option<u32> {
        if self.hold(own) {
            return Some(own);
        }
        let (mut yes, mut no) = (0, own.div_ceil(STEP));
        while no - yes > 1 {
            let middle = yes + (no - yes) / 2;
            if self.hold(middle * STEP) {
                yes = middle;
            } else {
                no = middle;
            }
        }
        (yes > 0).then_some(yes * STEP)
    }

    /// The best of each kind of node alone: the quickest of those that are a comfortable fit,
    /// else the roomiest.
    pub(crate) fn one_node(self, speed: &dyn Speed) -> (Option<Choice<'a>>, Option<Field<'a>>) {
        let key = |choice: &Choice| {
            let comfortable = choice.takes <= COMFORTABLE;
            let seconds = choice.token_s(speed).ok().filter(|_| comfortable);
            (!comfortable, seconds.unwrap_or(choice.takes))
        };
        let mut best: Option<Choice> = None;
        for field in self.alone {
            let Some((plan, takes)) = field.roomiest(1) else {
                continue;
            };
            let choice = Choice { field, plan, takes };
            let better = best.as_ref().is_none_or(|known| {
                let (a, b) = (key(&choice), key(known));
                (a.0, a.1.total_cmp(&b.1)) < (b.0, std::cmp::Ordering::Equal)
            });
            if better {
                best = Some(choice);
            }
        }
        (best, self.all)
    }

    /// One node where the model is a comfortable fit there, else whatever takes the least of its
    /// fullest node; or what an objective asks for, if it finds something that fits.
    pub(crate) fn choose(
        self,
        objective: Option<Objective>,
        speed: &dyn Speed,
    ) -> Result<Option<Choice<'a>>, FitError> {
        let (one, all) = self.one_node(speed);
        let Some(all) = all else { return Ok(one) };
        match objective {
            None => {
                if one.as_ref().is_some_and(|one| one.takes <= COMFORTABLE) {
                    return Ok(one);
                }
                let Some((plan, takes)) = all.roomiest(usize::MAX) else {
                    return Ok(one);
                };
                let field = all;
                let together = Choice { field, plan, takes };
                Ok(Some(match one {
                    Some(one) if one.takes <= together.takes => one,
                    _ => together,
                }))
            }
            Some(objective) => by_objective(one, all, objective, speed),
        }
    }
}

fn by_objective<'a>(
    one: Option<Choice<'a>>,
    all: Field<'a>,
    objective: Objective,
    speed: &dyn Speed,
) -> Result<Option<Choice<'a>>, FitError> {
    for level in [
        Level::Effective(COMFORTABLE),
        Level::Effective(1.0),
        Level::Limit,
    ] {
        let Some(plan) = all.place(objective, level, usize::MAX, speed)? else {
            continue;
        };
        let takes = all.takes(&plan);
        let together = Choice {
            field: all,
            plan,
            takes,
        };
        // A node alone gives up nothing to a cluster, so it may be better than as one of many.
        let alone = one.filter(|one| one.takes <= together.takes.max(COMFORTABLE));
        return Ok(Some(match alone {
            Some(one)
                if objective == Objective::OneStream
                    && one.token_s(speed)? <= together.token_s(speed)? =>
            {
                one
            }
            _ => together,
        }));
    }
    let roomiest = all.roomiest(usize::MAX);
    Ok(match (one, roomiest) {
        (Some(one), Some((_, takes))) if one.takes <= takes => Some(one),
        (_, Some((plan, takes))) => Some(Choice {
            field: all,
            plan,
            takes,
        }),
        (one, None) => one,
    })
}
