//! The commands that people type, a file each.

pub(crate) mod backtest;
#[cfg(feature = "engine")]
pub(crate) mod bench;
#[cfg(feature = "engine")]
pub(crate) mod build_info;
#[cfg(feature = "engine")]
pub(crate) mod calibrate;
#[cfg(all(feature = "engine", unix))]
pub(crate) mod cluster;
#[cfg(all(feature = "engine", unix))]
pub(crate) mod doctor;
pub(crate) mod fit;
#[cfg(feature = "engine")]
pub(crate) mod key;
#[cfg(all(feature = "engine", unix))]
pub(crate) mod lab;
#[cfg(feature = "engine")]
pub(crate) mod models;
pub(crate) mod names;
#[cfg(feature = "engine")]
pub(crate) mod parity;
pub(crate) mod plan;
#[cfg(feature = "engine")]
pub(crate) mod run;
#[cfg(all(feature = "engine", unix))]
pub(crate) mod service;
pub(crate) mod site;
#[cfg(all(feature = "engine", unix))]
pub(crate) mod up;
