//! Which devices stages compute on. A child process asks ggml for them: a GPU's driver may crash or
//! hang, and a process that has asked it may hold memory of the GPU until it ends.

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::bail;
use brigade_llama::DeviceKind as Kind;
use brigade_node::child;

use crate::this_machine::devices::{Device, DeviceKind, mark};

/// Where the devices are chosen for processes that this one starts.
const VARIABLE: &str = "BRIGADE_DEVICE";

/// How long drivers may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The option that chooses.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct DeviceArgs {
    /// Devices that stages compute on, as `brigade build-info` names them, such as CUDA0,CUDA1; CPU
    /// for no GPU [default: what `BRIGADE_DEVICE` says, else all GPUs]
    #[arg(long = "device", value_name = "NAME,…", value_parser = names_of)]
    chosen: Option<Names>,
}

/// Names of devices.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Names(Vec<String>);

fn names_of(text: &str) -> Result<Names, &'static str> {
    let names = text.split(',').map(str::trim);
    let names: Vec<String> = names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    if names.is_empty() {
        return Err("no name");
    }
    Ok(Names(names))
}

impl DeviceArgs {
    /// Tells the processes that this one starts.
    pub(crate) fn apply(&self) {
        if let Some(Names(names)) = &self.chosen {
            child::give(VARIABLE, names.join(",").into());
        }
    }

    /// Refuses a name that no device of this machine has.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match &self.chosen {
            Some(names) => names.check(&ask()?),
            None => Ok(()),
        }
    }
}

impl Names {
    fn check(&self, devices: &[Device]) -> anyhow::Result<()> {
        let known = |name: &str| devices.iter().any(|device| device.name == name);
        if let Some(unknown) = self.0.iter().find(|name| !known(name)) {
            let all: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
            bail!(
                "there is no device {unknown}; this machine has {}",
                all.join(", ")
            );
        }
        Ok(())
    }
}

/// The names that this process was told to compute on; `None` leaves it to llama.cpp.
pub(crate) fn chosen() -> Option<Vec<String>> {
    let Names(names) = names_of(&std::env::var(VARIABLE).ok()?).ok()?;
    Some(names)
}

/// The devices of this machine.
pub(crate) fn ask() -> anyhow::Result<Vec<Device>> {
    let (mut process, mut reports) = child::spawn("devices", "the look at the devices")?;
    let (sender, report) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(reports.read::<Vec<Device>>());
    });
    match report.recv_timeout(PATIENCE) {
        Ok(Ok(Some(devices))) => Ok(devices),
        Ok(Ok(None)) => Err(process.gone().into()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => bail!(
            "the look at the devices took more than {} s: a driver hangs",
            PATIENCE.as_secs()
        ),
    }
}

/// `brigade devices`: says what ggml finds, once.
pub(crate) fn serve() -> ExitCode {
    // Drivers may print: from here on only reports reach the parent.
    let _orders = child::orders::<()>();
    let devices = brigade_llama::devices();
    let mut devices: Vec<Device> = devices.into_iter().map(told).collect();
    mark(&mut devices, chosen().as_deref());
    child::report(&devices);
    ExitCode::SUCCESS
}

fn told(device: brigade_llama::Device) -> Device {
    Device {
        name: device.name,
        description: device.description,
        kind: match device.kind {
            Kind::Cpu => DeviceKind::Cpu,
            Kind::Gpu => DeviceKind::Gpu,
            Kind::IntegratedGpu => DeviceKind::IntegratedGpu,
            Kind::Accelerator => DeviceKind::Accelerator,
        },
        bus_id: device.bus_id,
        memory_bytes: device.memory_bytes,
        free_bytes: device.free_bytes,
        used: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_device_is_refused_by_name() {
        let devices: Vec<Device> = brigade_llama::devices().into_iter().map(told).collect();
        names_of(" CPU, ").unwrap().check(&devices).unwrap();
        let unknown = names_of("CPU,CUDA99").unwrap();
        let error = unknown.check(&devices).unwrap_err().to_string();
        assert!(
            error.starts_with("there is no device CUDA99; this machine has ")
                && error.contains("CPU"),
            "{error}"
        );
        assert!(names_of(" , ").is_err());
    }
}
