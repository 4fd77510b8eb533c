//! Which split a verdict is about.

use std::cmp::Ordering;

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
    /// A plan of a field; one on a single node is charged as that node alone, with no cluster
    /// around it.
    fn of(mut field: Field<'a>, plan: Plan) -> Self {
        if let [only] = &plan.stages[..]
            && field.only().is_none()
        {
            field.alone(only.node);
        }
        let takes = field.takes(&plan);
        Self { field, plan, takes }
    }

    /// The roomiest plan of a field; where that exceeds a limit, one within the limits if there is.
    fn roomiest(field: Field<'a>, most: usize) -> Option<Self> {
        let (plan, _) = field.roomiest(most)?;
        let plan = match field.utilization(&plan, Level::Limit) {
            over if over > 1.0 => field.within_limits(most).unwrap_or(plan),
            _ => plan,
        };
        Some(Self::of(field, plan))
    }

    pub(crate) fn spills(&self) -> bool {
        self.field.spills(&self.plan)
    }

    pub(crate) fn token_s(&self, speed: &dyn Speed) -> Result<f64, FitError> {
        self.timing(speed).token_s()
    }

    fn timing<'b>(&'b self, speed: &'b dyn Speed) -> Timing<'b> {
        let Self { field, plan, .. } = self;
        Timing { field, plan, speed }
    }

    /// Whether every node stays within its limit.
    pub(crate) fn within_limits(&self) -> bool {
        self.field.utilization(&self.plan, Level::Limit) <= 1.0
    }

    fn is_comfortable(&self) -> bool {
        self.takes <= COMFORTABLE
    }

    /// The largest context that this very plan holds within the limits, up to the model's own.
    pub(crate) fn max_context(&self, own: u32) -> Option<u32> {
        largest(own, |context| {
            let load = Load {
                context,
                ..self.field.costs.load
            };
            let field = self.field.under(load);
            field.utilization(&self.plan, Level::Limit) <= 1.0
        })
    }
}

/// The largest context that holds, up to a model's own; contexts grow in steps of a cache.
fn largest(own: u32, holds: impl Fn(u32) -> bool) -> Option<u32> {
    if holds(own) {
        return Some(own);
    }
    let (mut yes, mut no) = (0, own.div_ceil(STEP));
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if holds(middle * STEP) {
            yes = middle;
        } else {
            no = middle;
        }
    }
    (yes > 0).then_some(yes * STEP)
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
                let mut one = whole.clone();
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

    /// Whether so many sequences of this context can be held within the limits.
    fn hold(&self, context: u32, sequences: Option<u32>) -> bool {
        self.each().any(|field| {
            let asked = field.costs.load;
            let load = Load {
                context,
                sequences: sequences.unwrap_or(asked.sequences),
                ..asked
            };
            field.under(load).holds(Level::Limit)
        })
    }

    /// Whether the weights and the least useful context of one sequence stay within the limits.
    pub(crate) fn least(&self, own: u32) -> bool {
        self.hold(LEAST_CONTEXT.min(own), Some(1))
    }

    /// The largest context within the limits, however the model is divided, up to its own.
    pub(crate) fn largest(&self, own: u32) -> Option<u32> {
        largest(own, |context| self.hold(context, None))
    }

    /// The best of each kind of node alone: the quickest of those that are a comfortable fit,
    /// else the roomiest.
    pub(crate) fn one_node(&self, speed: &dyn Speed) -> Option<Choice<'a>> {
        let key = |choice: &Choice| {
            let seconds = choice.token_s(speed).ok();
            let (rank, cost) = match (choice.is_comfortable(), seconds) {
                (true, Some(seconds)) => (0.0, seconds),
                (true, None) => (1.0, choice.takes),
                (false, _) => (2.0, choice.takes),
            };
            let used = choice
                .field
                .utilization(&choice.plan, Level::Effective(1.0));
            let seconds = seconds.unwrap_or(f64::INFINITY);
            [rank, cost, choice.takes, used, seconds]
        };
        let alone = self.alone.iter().cloned();
        let choices = alone.filter_map(|field| Choice::roomiest(field, 1));
        choices.min_by(|a, b| {
            let (a, b) = (key(a), key(b));
            let differing = a.iter().zip(&b).map(|(a, b)| a.total_cmp(b));
            differing.fold(Ordering::Equal, Ordering::then)
        })
    }

    /// What fits, as an objective asks for; without one, one node where the model is a comfortable
    /// fit there, else whatever takes the least of its fullest node.
    pub(crate) fn choose(
        &self,
        objective: Option<Objective>,
        speed: &dyn Speed,
    ) -> Result<Option<Choice<'a>>, FitError> {
        match objective {
            None => Ok(self.wise(speed)),
            Some(objective) => self.best_at(objective, speed),
        }
    }

    fn wise(&self, speed: &dyn Speed) -> Option<Choice<'a>> {
        let one = self.one_node(speed);
        if let Some(one) = &one
            && one.spills()
            && let Some(quick) = self.in_gpus(speed)
            && let (Ok(own), Ok(other)) = (one.token_s(speed), quick.token_s(speed))
            && other < own
        {
            return Some(quick);
        }
        // A node whose speed nobody knows is no better than several whose is known.
        let known = |choice: &Choice| choice.token_s(speed).is_ok();
        let enough = |one: &Choice| one.is_comfortable() && known(one);
        if one.as_ref().is_some_and(enough) {
            return one;
        }
        let together = self.all.clone();
        let together = together.and_then(|all| Choice::roomiest(all, usize::MAX));
        let key = |choice: &Choice| {
            let comfortable = choice.is_comfortable();
            let poor = (!choice.within_limits(), !comfortable, !known(choice));
            (poor, choice.takes)
        };
        [one, together].into_iter().flatten().min_by(|a, b| {
            let (a, b) = (key(a), key(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        })
    }

    /// The best at an objective of all ways that are wise to plan with; else of those within the
    /// limits; else the roomiest.
    fn best_at(
        &self,
        objective: Objective,
        speed: &dyn Speed,
    ) -> Result<Option<Choice<'a>>, FitError> {
        let mut choices: Vec<Choice> = Vec::new();
        choices.extend(self.one_node(speed));
        choices.extend(self.in_gpus(speed));
        choices.extend(self.quickest_alone(speed));
        if let Some(all) = &self.all {
            choices.extend(Choice::roomiest(all.clone(), usize::MAX));
            for field in [Some(all.clone()), all.gpus_only()].into_iter().flatten() {
                for level in [
                    Level::Effective(COMFORTABLE),
                    Level::Effective(1.0),
                    Level::Limit,
                ] {
                    if let Some(plan) = field.place(objective, level, usize::MAX, speed)? {
                        choices.push(Choice::of(field, plan));
                        break;
                    }
                }
            }
        }
        let wise = |choice: &Choice| choice.takes <= 1.0;
        // Room is what is asked for: what fills a node is no answer where something does not.
        let roomy = objective == Objective::LargestContext;
        if roomy && choices.iter().any(Choice::is_comfortable) {
            choices.retain(Choice::is_comfortable);
        } else if choices.iter().any(wise) {
            choices.retain(wise);
        } else if choices.iter().any(Choice::within_limits) {
            choices.retain(Choice::within_limits);
        } else {
            return Ok(choices
                .into_iter()
                .min_by(|a, b| a.takes.total_cmp(&b.takes)));
        }
        let cost = |choice: &Choice| match objective {
            Objective::OneStream => choice.token_s(speed).unwrap_or(f64::INFINITY),
            Objective::ManyStreams => {
                let together = choice.timing(speed).together(self.streams());
                together.map_or(f64::INFINITY, |rate| -rate)
            }
            Objective::LargestContext => {
                let own = choice.field.costs.model.max_context;
                -f64::from(choice.max_context(own).unwrap_or(0))
            }
        };
        let costs = choices.into_iter().map(|choice| (cost(&choice), choice));
        let best = costs.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.takes.total_cmp(&b.1.takes)));
        Ok(best.map(|(_, choice)| choice))
    }

    /// Streams that many are: those that are asked for, or one a node.
    fn streams(&self) -> u32 {
        let asked = self.each().map(|field| field.costs.load.sequences).max();
        let nodes = self.all.as_ref().map_or(1, Field::nodes) as u32;
        match asked {
            Some(asked @ 2..) => asked,
            _ => nodes.max(2),
        }
    }

    /// The quickest way that is a comfortable fit in GPUs alone: what is quick goes before what is
    /// simple, where system memory would have to help.
    fn in_gpus(&self, speed: &dyn Speed) -> Option<Choice<'a>> {
        let fields = self.each().filter_map(Field::gpus_only);
        let plans = fields.filter_map(|field| Choice::roomiest(field, usize::MAX));
        quickest(plans.filter(Choice::is_comfortable), speed)
    }

    /// The quickest node alone that holds the model within its limit, in GPUs alone where it can.
    pub(crate) fn quickest_alone(&self, speed: &dyn Speed) -> Option<Choice<'a>> {
        let own = self.alone.iter();
        let fields = own.flat_map(|field| [Some(field.clone()), field.gpus_only()]);
        let plans = fields
            .flatten()
            .filter_map(|field| Choice::roomiest(field, 1));
        quickest(plans.filter(Choice::within_limits), speed)
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
