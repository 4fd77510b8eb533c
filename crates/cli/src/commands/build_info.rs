//! `brigade build-info`: what llama.cpp was built with, and the devices that it finds.

use std::fmt::Write as _;
use std::process::ExitCode;

use brigade_llama::{Device, DeviceKind};
use serde_json::json;

use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The backends in this build, beside the CPU's.
const BACKENDS: [(bool, &str); 4] = [
    (cfg!(target_os = "macos"), "metal"),
    (cfg!(feature = "cuda"), "cuda"),
    (cfg!(feature = "rocm"), "rocm"),
    (cfg!(feature = "vulkan"), "vulkan"),
];

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let features = brigade_llama::cpu_features();
    let rpc = brigade_llama::supports_rpc();
    let devices = brigade_llama::devices();
    let platform = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let mut backends = vec!["cpu"];
    backends.extend(
        BACKENDS
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, name)| *name),
    );
    let cpu = if cfg!(feature = "portable") {
        "any, chosen at start"
    } else {
        "that of the machine that built it"
    };
    let text = if args.json {
        json!({
            "schema": "brigade.build/1",
            "version": env!("CARGO_PKG_VERSION"),
            "platform": platform,
            "llama_cpp": brigade_llama::build(),
            "backends": backends,
            "portable": cfg!(feature = "portable"),
            "cpu_features": features,
            "rpc": rpc,
            "devices": devices.iter().map(device_json).collect::<Vec<_>>(),
        })
        .to_string()
    } else {
        let mut text = format!(
            "brigade {} for {platform}\n{}\nbackends: {}\nprocessor: {cpu}\nCPU features: {}\n\
             RPC: {}",
            env!("CARGO_PKG_VERSION"),
            brigade_llama::build(),
            backends.join(", "),
            features.join(" "),
            if rpc { "yes" } else { "no" }
        );
        for device in &devices {
            let _ = write!(text, "\ndevice {}: {}", device.name, device.description);
            if device.memory_bytes > 0 {
                let memory = output::bytes(device.memory_bytes);
                let _ = write!(text, ", {memory}");
            }
        }
        text
    };
    output::line(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn device_json(device: &Device) -> serde_json::Value {
    json!({
        "name": device.name,
        "description": device.description,
        "kind": match device.kind {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Gpu => "gpu",
            DeviceKind::IntegratedGpu => "integrated-gpu",
            DeviceKind::Accelerator => "accelerator",
        },
        "memory_bytes": device.memory_bytes,
        "free_bytes": device.free_bytes,
    })
}
