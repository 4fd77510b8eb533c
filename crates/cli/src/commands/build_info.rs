//! `brigade build-info`: what llama.cpp was built with.

use std::process::ExitCode;

use serde_json::json;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let features = brigade_llama::cpu_features();
    let rpc = brigade_llama::supports_rpc();
    if args.json {
        println!(
            "{}",
            json!({
                "schema": "brigade.build/1",
                "llama_cpp": brigade_llama::build(),
                "cpu_features": features,
                "rpc": rpc,
            })
        );
    } else {
        println!("{}", brigade_llama::build());
        println!("CPU features: {}", features.join(" "));
        println!("RPC: {}", if rpc { "yes" } else { "no" });
    }
    ExitCode::SUCCESS
}
