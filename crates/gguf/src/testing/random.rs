//! Random numbers that are the same everywhere.

use crate::GgmlType;

/// The `SplitMix64` generator.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// One that starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `limit - 1`, or 0 where that is none.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.bits()) * limit as u128) >> 64) as usize
    }

    /// A number in [-1, 1).
    pub fn symmetric(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// `count` weights with a standard deviation, as they stand in a file.
    ///
    /// # Panics
    /// On a type other than `F32`, `F16`, `Q8_0` and `Q4_0`.
    pub(super) fn weights(&mut self, ggml_type: GgmlType, count: u64, deviation: f32) -> Vec<u8> {
        // Uniform numbers in [-a, a] have a deviation of a / √3.
        let amplitude = deviation * 3f32.sqrt();
        let mut bytes = Vec::new();
        match ggml_type {
            GgmlType::F32 => {
                for _ in 0..count {
                    bytes.extend((amplitude * self.symmetric()).to_le_bytes());
                }
            }
            GgmlType::F16 => {
                for _ in 0..count {
                    bytes.extend(half(amplitude * self.symmetric()).to_le_bytes());
                }
            }
            // Each block is a scale, varied a little, and random quants: what matters is that
            // it is valid, and no weights exist that it would have to come near to.
            GgmlType::Q8_0 | GgmlType::Q4_0 => {
                let (steps, quants) = if ggml_type == GgmlType::Q8_0 {
                    (128.0, 32)
                } else {
                    (8.0, 16)
                };
                for _ in 0..count / 32 {
                    let scale = amplitude / steps * (1.0 + 0.2 * self.symmetric());
                    bytes.extend(half(scale).to_le_bytes());
                    bytes.extend((0..quants).map(|_| self.bits() as u8));
                }
            }
            other => panic!("no random weights of type {other}"),
        }
        bytes
    }
}

/// The half-precision float below or at `value`, towards 0; what is too small for a normal one
/// becomes 0. `value` must be below 65,536.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    if exponent <= 0 {
        return sign;
    }
    sign | (exponent as u16) << 10 | (bits >> 13) as u16 & 0x3ff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_those_of_the_standard() {
        for (value, bits) in [
            (0.0, 0x0000),
            (1.0, 0x3c00),
            (-2.0, 0xc000),
            (0.5, 0x3800),
            (1.5, 0x3e00),
            (65_504.0, 0x7bff),
            (6.103_515_6e-5, 0x0400),
            (1e-8, 0x0000),
        ] {
            assert_eq!(half(value), bits, "{value}");
        }
    }

    #[test]
    fn the_generator_is_splitmix() {
        let mut random = Random::new(1_234_567);
        let first: Vec<_> = (0..3).map(|_| random.bits()).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }
}
