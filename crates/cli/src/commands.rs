//! The commands that people type, a file each.

#[cfg(feature = "engine")]
pub(crate) mod bench;
#[cfg(feature = "engine")]
pub(crate) mod build_info;
pub(crate) mod fit;
#[cfg(feature = "engine")]
pub(crate) mod key;
#[cfg(feature = "engine")]
pub(crate) mod lab;
#[cfg(feature = "engine")]
pub(crate) mod parity;
pub(crate) mod plan;
#[cfg(feature = "engine")]
pub(crate) mod run;
