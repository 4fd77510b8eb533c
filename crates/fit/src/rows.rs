//! Measured rows as people write them, read in the terms of the speed model.
//!
//! A row names a machine, a model and a quantization in somebody's words. Which chip, which model and
//! which bits that is, is found here, or the fact that is missing is named.

mod chips;
mod features;
mod names;
mod weights;

pub(crate) use features::{About, Features, Reader};

/// Why a rate cannot be that of one stream: more bytes a second than the memory gives.
pub(crate) fn impossible(features: &Features, rate: f64) -> Option<String> {
    let read = rate * features.read_gb();
    let bandwidth = features.decode.bandwidth_gb_s;
    (read > bandwidth && features.decode.spilled == 0.0).then(|| {
        format!(
            "impossible: {rate} tokens a second of {:.1} GB each are {read:.0} GB/s of {bandwidth:.0}; speculative decoding, or another model than named",
            features.read_gb()
        )
    })
}
