//! The commands that people type, a file each.

pub(crate) mod bench;
pub(crate) mod build_info;
pub(crate) mod lab;
pub(crate) mod parity;
pub(crate) mod run;
