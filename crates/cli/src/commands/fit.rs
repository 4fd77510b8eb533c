//! `brigade fit`: what runs on which machines, and how well.

use std::path::Path;
use std::process::ExitCode;

use brigade_fit::page::{ComboPage, EverywherePage, ModelVerdictPage};
use brigade_fit::verdict::Detail;

use crate::planner::{self, Asked};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A model of the catalog, a GGUF file or a config.json, or the http(s) address of one
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// A combo, or machines such as "4x mac-mini-m4-pro-64gb, link=tb5" [default: this machine]
    #[arg(long, value_name = "COMBO|MACHINES")]
    on: Option<String>,
    /// Every combo and machine of the catalog that runs the model
    #[arg(long, conflicts_with = "on", requires = "model")]
    everywhere: bool,
    #[command(flatten)]
    asked: Asked,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, catalog: Option<&Path>) -> anyhow::Result<ExitCode> {
    let catalog = planner::catalog(catalog)?;
    let speed = planner::speed(&catalog);
    let ask = args.asked.ask(None, Detail::Full);
    let model = match &args.model {
        Some(name) => Some(planner::model(&catalog, name)?),
        None => None,
    };
    if let Some(model) = &model {
        args.asked.note_cut(model);
    }
    match &model {
        Some(model) if args.everywhere => {
            planner::show(
                &EverywherePage::new(&catalog, model, &ask, &speed)?,
                args.json,
            )?;
        }
        Some(model) => {
            let cluster = planner::cluster(&catalog, args.on.as_deref())?;
            planner::show(
                &ModelVerdictPage::new(&catalog, model, &cluster, &ask, &speed)?,
                args.json,
            )?;
        }
        None => {
            let cluster = planner::cluster(&catalog, args.on.as_deref())?;
            planner::show(
                &ComboPage::new(&catalog, &cluster, &ask, &speed)?,
                args.json,
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
