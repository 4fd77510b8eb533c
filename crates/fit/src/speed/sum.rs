//! Times as sums of products: what is fitted and what predicts are the same few lines.
//!
//! Every part of a step takes an amount (bytes, operations, layers; already divided by the data
//! sheet's figure, so in milliseconds) times some fitted factors, or divided by them. A step is the
//! sum of its parts, and the derivative of its logarithm by that of a factor is the share of the
//! parts that have it.

/// A fitted factor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameter {
    /// Its name, such as `efficiency: apple`.
    pub name: &'static str,
    /// Its value where nothing is measured.
    pub prior: f64,
    /// How far its logarithm may be from the prior's: one standard deviation.
    pub sd: f64,
}

/// The most factors of a part.
const MOST: usize = 7;

/// A product of factors, by their indices.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Factors {
    terms: [(u8, i8); MOST],
    len: usize,
}

impl Factors {
    /// No factor: one.
    pub const ONE: Self = Self {
        terms: [(0, 0); MOST],
        len: 0,
    };

    /// Multiplied by a factor.
    #[must_use]
    pub fn times(self, parameter: usize) -> Self {
        self.with(parameter, 1)
    }

    /// Divided by a factor.
    #[must_use]
    pub fn over(self, parameter: usize) -> Self {
        self.with(parameter, -1)
    }

    fn with(mut self, parameter: usize, sign: i8) -> Self {
        if let Some(term) = self.terms.get_mut(self.len) {
            *term = (parameter as u8, sign);
            self.len += 1;
        }
        self
    }

    fn iter(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        let terms = self.terms.iter().take(self.len);
        terms.map(|&(parameter, sign)| (usize::from(parameter), f64::from(sign)))
    }

    /// Their product, where all factors have these values.
    pub fn product(&self, values: &[f64]) -> f64 {
        let mut product = 1.0;
        for &(parameter, sign) in self.terms.iter().take(self.len) {
            let value = values[usize::from(parameter)];
            if sign > 0 {
                product *= value;
            } else {
                product /= value;
            }
        }
        product
    }
}

/// A step: parts in milliseconds, times their factors.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sum {
    /// The parts.
    pub parts: Vec<(f64, Factors)>,
    /// The rate gains `exp(logarithm · factor)`: several devices that work in turns.
    pub gain: Option<(f64, usize)>,
}

impl Sum {
    /// Adds a part, if there is any of it.
    pub fn add(&mut self, ms: f64, factors: Factors) {
        if ms > 0.0 {
            self.parts.push((ms, factors));
        }
    }

    /// Milliseconds, where the factors have these values.
    pub fn ms(&self, values: &[f64]) -> f64 {
        let parts = self.parts.iter();
        let sum: f64 = parts
            .map(|(ms, factors)| ms * factors.product(values))
            .sum();
        sum / self.ln_gain(values).exp()
    }

    fn ln_gain(&self, values: &[f64]) -> f64 {
        self.gain
            .map_or(0.0, |(ln, parameter)| ln * values[parameter])
    }

    /// Logarithm of the tokens a second, if the step is one token; its derivatives by the
    /// factors' logarithms are put into `gradient`.
    pub fn ln_rate(&self, values: &[f64], gradient: &mut [f64]) -> f64 {
        gradient.fill(0.0);
        let mut sum = 0.0;
        for (ms, factors) in &self.parts {
            let ms = ms * factors.product(values);
            sum += ms;
            for (at, sign) in factors.iter() {
                gradient[at] -= sign * ms;
            }
        }
        for share in gradient.iter_mut() {
            *share /= sum;
        }
        let gain = self.ln_gain(values);
        if let Some((_, parameter)) = self.gain {
            gradient[parameter] += gain;
        }
        1e3_f64.ln() - sum.ln() + gain
    }
}
