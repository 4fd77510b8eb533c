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

impl<'a> Choice<'a> {
    /// The roomiest plan of a field.
    fn roomiest(field: Field<'a>, most: usize) -> Option<Self> {
        let (plan, takes) = field.roomiest(most)?;
        Some(Self { field, plan, takes })
    }

    pub(crate) fn spills(&self) -> bool {
        self.field.spills(&self.plan)
    }

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

    /// Whether some node has GPUs and system memory beside them.
    pub(crate) fn has_ram_beside_gpus(&self) -> bool {
        self.each().any(|field| field.gpus_only().is_some())
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
        let in_gpus = self.in_gpus(speed);
        let alone_quick = match objective {
            Some(Objective::OneStream) => self.quickest_alone(speed),
            _ => None,
        };
        let (one, all) = self.one_node(speed);
        let quicker = |one: &Choice| {
            let other = in_gpus.as_ref()?.token_s(speed).ok()?;
            one.token_s(speed)
                .ok()
                .filter(|own| one.spills() && other < *own)
        };
        if objective.is_none() && one.as_ref().is_some_and(|one| quicker(one).is_some()) {
            return Ok(in_gpus);
        }
        let Some(all) = all else {
            return Ok(match alone_quick {
                Some(quick) if quick.takes <= 1.0 => Some(quick),
                _ => one,
            });
        };
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
            Some(Objective::OneStream) => one_stream(one, alone_quick, all, speed),
            Some(objective) => by_objective(one, all, objective, speed),
        }
    }

    /// The quickest way that is a comfortable fit in GPUs alone: what is quick goes before what is
    /// simple, where system memory would have to help.
    fn in_gpus(&self, speed: &dyn Speed) -> Option<Choice<'a>> {
        let fields = self.each().filter_map(Field::gpus_only);
        let plans = fields.filter_map(|field| Choice::roomiest(field, usize::MAX));
        quickest(plans.filter(|choice| choice.takes <= COMFORTABLE), speed)
    }

    /// The quickest node alone that holds the model within its limit, in GPUs alone where it can.
    pub(crate) fn quickest_alone(&self, speed: &dyn Speed) -> Option<Choice<'a>> {
        let own = self.alone.iter();
        let fields = own.flat_map(|field| [Some(field.under(field.costs.load)), field.gpus_only()]);
        let plans = fields
            .flatten()
            .filter_map(|field| Choice::roomiest(field, 1));
        let fits = |choice: &Choice| choice.field.utilization(&choice.plan, Level::Limit) <= 1.0;
        quickest(plans.filter(fits), speed)
    }
}

fn quickest<'a>(
    choices: impl Iterator<Item = Choice<'a>>,
    speed: &dyn Speed,
) -> Option<Choice<'a>> {
    let timed = choices.filter_map(|choice| Some((choice.token_s(speed).ok()?, choice)));
    let best = timed.min_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, choice)| choice)
}

/// The least time of a token that what is wise to plan with allows: over nodes or on one, with or
/// without system memory beside GPUs.
fn one_stream<'a>(
    one: Option<Choice<'a>>,
    quick: Option<Choice<'a>>,
    all: Field<'a>,
    speed: &dyn Speed,
) -> Result<Option<Choice<'a>>, FitError> {
    let mut choices: Vec<Choice> = quick.into_iter().chain(one).collect();
    choices.retain(|choice| choice.takes <= 1.0);
    // Over several nodes there is room to be comfortable, if anywhere.
    for field in [Some(all.under(all.costs.load)), all.gpus_only()]
        .into_iter()
        .flatten()
    {
        for level in [Level::Effective(COMFORTABLE), Level::Effective(1.0)] {
            if let Some(plan) = field.place(Objective::OneStream, level, usize::MAX, speed)? {
                let takes = field.takes(&plan);
                choices.push(Choice { field, plan, takes });
                break;
            }
        }
    }
    match quickest(choices.into_iter(), speed) {
        Some(choice) => Ok(Some(choice)),
        None => by_objective(None, all, Objective::OneStream, speed),
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
        return Ok(Some(together));
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
