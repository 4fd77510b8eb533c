//! `brigade names`: what the catalog has, by the names that other commands take.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use brigade_fit::catalog::Catalog;
use brigade_fit::error::FitError;
use brigade_fit::page::format::clean;
use serde_json::{Map, Value, json};

use crate::{output, planner};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Of what [default: all]
    #[arg(value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What has names.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    Machines,
    Gpus,
    Cpus,
    Links,
    Models,
    Combos,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Machines,
        Self::Gpus,
        Self::Cpus,
        Self::Links,
        Self::Models,
        Self::Combos,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Machines => "machines",
            Self::Gpus => "gpus",
            Self::Cpus => "cpus",
            Self::Links => "links",
            Self::Models => "models",
            Self::Combos => "combos",
        }
    }

    /// Ids, each with its name for people.
    fn of(self, catalog: &Catalog) -> Vec<(&str, &str)> {
        let devices = catalog.devices.iter();
        match self {
            Self::Machines => {
                let machines = catalog.machines.iter().map(|sold| &sold.machine);
                machines.map(|own| (&*own.id, &*own.name)).collect()
            }
            Self::Gpus => devices
                .filter(|device| device.is_gpu())
                .map(|gpu| (&*gpu.id, &*gpu.name))
                .collect(),
            Self::Cpus => devices
                .filter(|device| device.family == "cpu")
                .map(|cpu| (&*cpu.id, &*cpu.name))
                .collect(),
            Self::Links => {
                let links = catalog.links.iter().map(|link| &link.link);
                links.map(|link| (&*link.id, &*link.name)).collect()
            }
            Self::Models => {
                let models = catalog.models.iter();
                models.map(|model| (&*model.id, &*model.name)).collect()
            }
            Self::Combos => {
                let combos = catalog.combos.iter().map(|combo| &combo.cluster);
                combos.map(|combo| (&*combo.id, &*combo.name)).collect()
            }
        }
    }
}

pub(crate) fn run(args: &Args, catalog: Option<&Path>) -> anyhow::Result<ExitCode> {
    let catalog = planner::catalog(catalog)?;
    let kinds = args.kind.map_or(Kind::ALL.to_vec(), |kind| vec![kind]);
    if args.json {
        let mut document = Map::new();
        document.insert("schema".to_owned(), json!("brigade.names/1"));
        for kind in kinds {
            let names = kind.of(&catalog).into_iter();
            let names: Value = names
                .map(|(id, name)| json!({"id": id, "name": name}))
                .collect();
            document.insert(kind.name().to_owned(), names);
        }
        output::document(&format!("{}\n", Value::Object(document)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for (index, kind) in kinds.iter().enumerate() {
        if kinds.len() > 1 {
            let gap = if index > 0 { "\n" } else { "" };
            let _ = writeln!(text, "{gap}{}:", kind.name());
        }
        let names = kind.of(&catalog);
        let width = names.iter().map(|(id, _)| id.len()).max().unwrap_or(0);
        for (id, name) in names {
            let _ = writeln!(text, "{:width$}  {}", clean(id), clean(name));
        }
    }
    output::page(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Which list has the names of a kind of which none fits.
pub(crate) fn list_of(error: &FitError) -> Option<&'static str> {
    let FitError::UnknownName { kind, .. } = error else {
        return None;
    };
    match *kind {
        "machine" => Some("machines"),
        "model" => Some("models"),
        "link" => Some("links"),
        "CPU" => Some("cpus"),
        _ => None,
    }
}
