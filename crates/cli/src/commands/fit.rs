//! `brigade fit`: what runs on which machines, and how well.

use std::path::Path;
use std::process::ExitCode;

use brigade_fit::page::{ComboPage, EverywherePage, VerdictPage};
use brigade_fit::verdict::Detail;

use crate::planner::{self, Asked, On, Show};

#[derive(Debug, clap::Args)]
#[command(after_long_help = planner::MACHINES_HELP)]
pub(crate) struct Args {
    /// A model of the catalog, a GGUF file or a config.json, the http(s) address of one, or
    /// `hf:owner/repo[:QUANT][@revision]`
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    #[command(flatten)]
    on: On,
    /// Every combo and machine of the catalog that runs the model
    #[arg(long, conflicts_with = "On", requires = "model")]
    everywhere: bool,
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    show: Show,
}

pub(crate) fn run(args: &Args, catalog: Option<&Path>) -> anyhow::Result<ExitCode> {
    let catalog = planner::catalog(catalog)?;
    let speed = planner::speed(&catalog);
    // Of many models or places, each is told in a line.
    let detail = if args.model.is_some() && !args.everywhere {
        Detail::Full
    } else {
        Detail::Brief
    };
    let ask = args.asked.ask(None, detail);
    let model = match &args.model {
        Some(name) => Some(planner::model(&catalog, name)?),
        None => None,
    };
    if let Some(model) = &model {
        args.asked.note_cut(model);
    }
    match &model {
        Some(model) if args.everywhere => {
            args.show
                .page(&EverywherePage::new(&catalog, model, &ask, &speed)?)?;
        }
        Some(model) => {
            let cluster = args.on.machines(&catalog)?;
            args.show
                .page(&VerdictPage::new(&catalog, model, &cluster, &ask, &speed)?)?;
        }
        None => {
            let cluster = args.on.machines(&catalog)?;
            args.show
                .page(&ComboPage::new(&catalog, &cluster, &ask, &speed)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
