//! Fits factors to measurements: Gauss–Newton on logarithms, with priors and a robust loss.

use crate::speed::sum::{Parameter, Sum};

/// Steps at most; fits end well before.
const STEPS: usize = 60;

/// No parameter moves further in one step.
const LONGEST: f64 = 0.7;

/// A measured rate and the step that it is about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Observation {
    pub(crate) sum: Sum,
    /// Logarithm of the tokens a second.
    pub(crate) ln_rate: f64,
    pub(crate) weight: f64,
}

/// Huber's loss: quadratic up to `bound`, linear beyond; `scale` is the error to expect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loss {
    pub(crate) bound: f64,
    pub(crate) scale: f64,
}

/// The values of the factors that fit best.
pub(crate) fn fit(observations: &[&Observation], parameters: &[Parameter], loss: Loss) -> Vec<f64> {
    let count = parameters.len();
    let prior: Vec<f64> = parameters.iter().map(|known| known.prior.ln()).collect();
    let mut theta = prior.clone();
    let mut values = vec![0.0; count];
    let mut gradient = vec![0.0; count];
    for _ in 0..STEPS {
        let mut normal = vec![0.0; count * count];
        let mut right = vec![0.0; count];
        exp(&theta, &mut values);
        for observation in observations {
            let predicted = observation.sum.ln_rate(&values, &mut gradient);
            let residual = observation.ln_rate - predicted;
            let robust = (loss.bound / residual.abs().max(1e-9)).min(1.0);
            let weight = observation.weight * robust / (loss.scale * loss.scale);
            accumulate(&mut normal, &mut right, &gradient, weight, residual);
        }
        for (at, parameter) in parameters.iter().enumerate() {
            let firm = 1.0 / (parameter.sd * parameter.sd);
            normal[at * count + at] += firm;
            right[at] += firm * (prior[at] - theta[at]);
        }
        let Some(step) = solve(normal, right) else {
            break;
        };
        let longest = step.iter().fold(0.0_f64, |most, part| most.max(part.abs()));
        let scale = (LONGEST / longest.max(1e-12)).min(1.0);
        for (value, part) in theta.iter_mut().zip(&step) {
            *value += scale * part;
        }
        if longest < 1e-4 {
            break;
        }
    }
    exp(&theta, &mut values);
    values
}

fn exp(logarithms: &[f64], values: &mut [f64]) {
    for (value, logarithm) in values.iter_mut().zip(logarithms) {
        *value = logarithm.exp();
    }
}

/// Adds one row's part to the normal equations; rows have few factors.
fn accumulate(normal: &mut [f64], right: &mut [f64], gradient: &[f64], weight: f64, residual: f64) {
    let count = gradient.len();
    let used: Vec<usize> = (0..count).filter(|&at| gradient[at] != 0.0).collect();
    for &row in &used {
        let scaled = weight * gradient[row];
        right[row] += scaled * residual;
        for &column in &used {
            normal[row * count + column] += scaled * gradient[column];
        }
    }
}

/// Solves a symmetric system by Cholesky; `None` where it is not positive definite.
fn solve(mut matrix: Vec<f64>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let count = right.len();
    for row in 0..count {
        for column in 0..=row {
            let dot: f64 = (0..column)
                .map(|at| matrix[row * count + at] * matrix[column * count + at])
                .sum();
            let rest = matrix[row * count + column] - dot;
            matrix[row * count + column] = if row == column {
                Some(rest).filter(|rest| *rest > 0.0)?.sqrt()
            } else {
                rest / matrix[column * count + column]
            };
        }
    }
    for row in 0..count {
        let known: f64 = (0..row)
            .map(|at| matrix[row * count + at] * right[at])
            .sum();
        right[row] = (right[row] - known) / matrix[row * count + row];
    }
    for row in (0..count).rev() {
        let known: f64 = (row + 1..count)
            .map(|at| matrix[at * count + row] * right[at])
            .sum();
        right[row] = (right[row] - known) / matrix[row * count + row];
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speed::sum::Factors;

    #[test]
    fn a_symmetric_system() {
        let matrix = vec![4.0, 2.0, 0.5, 2.0, 5.0, 1.0, 0.5, 1.0, 3.0];
        let found = solve(matrix.clone(), vec![1.0, -2.0, 3.0]).unwrap();
        for (row, right) in [1.0, -2.0, 3.0].into_iter().enumerate() {
            let left: f64 = (0..3).map(|at| matrix[row * 3 + at] * found[at]).sum();
            assert!((left - right).abs() < 1e-12);
        }
        assert_eq!(solve(vec![1.0, 2.0, 2.0, 1.0], vec![0.0, 0.0]), None);
    }

    #[test]
    fn factors_that_made_the_rates_are_found() {
        let parameters = [
            Parameter {
                name: "a",
                prior: 1.0,
                sd: 10.0,
            },
            Parameter {
                name: "b",
                prior: 1.0,
                sd: 10.0,
            },
        ];
        let truth = [0.5, 3.0];
        let observations: Vec<Observation> = (1..9)
            .map(|n| {
                let mut sum = Sum::default();
                sum.add(f64::from(n), Factors::ONE.over(0));
                sum.add(2.0, Factors::ONE.times(1));
                let mut gradient = [0.0; 2];
                let ln_rate = sum.ln_rate(&truth, &mut gradient);
                Observation {
                    sum,
                    ln_rate,
                    weight: 1.0,
                }
            })
            .collect();
        let loss = Loss {
            bound: 0.08,
            scale: 0.1,
        };
        let found = fit(&observations.iter().collect::<Vec<_>>(), &parameters, loss);
        for (found, truth) in found.iter().zip(truth) {
            assert!((found / truth - 1.0).abs() < 0.01, "{found} {truth}");
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_rate() {
        let mut sum = Sum::default();
        sum.add(3.0, Factors::ONE.over(0).times(1));
        sum.add(1.5, Factors::ONE.times(2));
        sum.gain = Some((0.7, 3));
        let values = [1.2, 0.7, 1.1, 0.75];
        let mut gradient = [0.0; 4];
        let rate = sum.ln_rate(&values, &mut gradient);
        assert!((1e3 / sum.ms(&values) - rate.exp()).abs() < 1e-9);
        for at in 0..4 {
            let mut moved = values;
            moved[at] *= 1e-6_f64.exp();
            let other = sum.ln_rate(&moved, &mut [0.0; 4]);
            assert!(((other - rate) / 1e-6 - gradient[at]).abs() < 1e-5);
        }
    }
}
