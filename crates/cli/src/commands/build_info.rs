//! `brigade build-info`: what llama.cpp was built with.

use std::process::ExitCode;

use serde_json::json;

use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let features = brigade_llama::cpu_features();
    let rpc = brigade_llama::supports_rpc();
    let text = if args.json {
        json!({
            "schema": "brigade.build/1",
            "llama_cpp": brigade_llama::build(),
            "cpu_features": features,
            "rpc": rpc,
        })
        .to_string()
    } else {
        format!(
            "{}\nCPU features: {}\nRPC: {}",
            brigade_llama::build(),
            features.join(" "),
            if rpc { "yes" } else { "no" }
        )
    };
    output::line(&text)?;
    Ok(ExitCode::SUCCESS)
}
