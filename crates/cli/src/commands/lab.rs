//! `brigade lab`: a throwaway cluster on this machine.

mod predicted;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use brigade_api::ChatTemplate;
use brigade_node::{Cluster, ClusterSpec, End, NodeInfo, Prompt, Tokenizer};
use serde_json::{Value, json};

use crate::backend::LocalBackend;
use crate::model::{self, Engine};
use crate::output;
use crate::server::{ApiArgs, Server};
use crate::signals::Signals;

/// Tokens of an answer whose speed is worth comparing with a prediction.
const LEAST_TOKENS: u32 = 16;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many nodes
    #[arg(long, default_value_t = 4, value_name = "N")]
    nodes: u32,
    /// A GGUF file, or the first of several [default: the demo model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    #[command(flatten)]
    serving: ApiArgs,
    /// Context of one sequence, in tokens [default: the model's own, 4096 at most]
    #[arg(long, value_name = "N")]
    ctx: Option<u32>,
    /// How the nodes work together [default: stages, where they support the model]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// Threads of each stage [default: the cores divided by the nodes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Answer this once and end
    #[arg(long, value_name = "PROMPT", conflicts_with = "ask")]
    once: Option<String>,
    /// Answer this, then serve
    #[arg(long, value_name = "PROMPT")]
    ask: Option<String>,
    /// The most tokens of the answer to --once or --ask
    #[arg(long, default_value_t = 256, value_name = "N")]
    max_tokens: u32,
    /// Print one line of JSON when the cluster is ready
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = model::path(args.model.as_deref())?;
    let source = model::open(&path)?;
    let context_tokens = model::context(&source, args.ctx)?;
    let (placement, remark) = model::placement(&source, args.nodes, args.engine)?;
    if let Some(remark) = remark {
        output::note(&remark);
    }
    let settings = args.serving.settings()?;
    let named_template = args.serving.chat_template()?;
    let listener = match (&args.once, args.serving.api) {
        (Some(_), None) => None,
        _ => Some(args.serving.listen(&settings)?),
    };
    let name = model::name(&source);
    let (layers, architecture) = (
        source.header().block_count()?,
        source.header().architecture()?.to_owned(),
    );
    let tokenizer = Tokenizer::start(&path)?;
    let template = model::chat_template(&source, named_template.as_deref(), tokenizer.facts())?;
    let facts = model::facts(&source)?;
    let spec = model::spec(source, placement, context_tokens, args.threads)?;
    let cluster = Cluster::start(&spec, &tokenizer, output::progress())?;
    output::progress_done();

    // Until the cluster only serves, a signal ends this process as it ends any other, and the
    // children end with it.
    let question = args.once.as_ref().or(args.ask.as_ref());
    let mut signals = None;
    if question.is_none() {
        signals = Some(Signals::catch()?);
    }
    let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
    if args.json {
        output::line(&ready_line(&cluster, address).to_string())?;
    } else {
        output::note(&format!(
            "{name}: {architecture}, {layers} layers over {} nodes, {} sequences of {context_tokens} \
             tokens\n{}",
            cluster.nodes.len(),
            spec.sequences,
            output::nodes_table(&cluster).trim_end()
        ));
    }
    let server = listener.map(|listener| {
        let backend = LocalBackend::new(
            cluster.instance.clone(),
            tokenizer.clone(),
            name.clone(),
            context_tokens,
            facts,
        );
        Server::start(listener, backend, template.clone(), settings)
    });
    let server = server.transpose()?;
    if let Some(question) = question {
        answer(
            &cluster,
            &spec,
            &tokenizer,
            template.as_ref(),
            question,
            args,
        )?;
    }
    if args.once.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let signals = match signals {
        Some(signals) => signals,
        None => Signals::catch()?,
    };
    if let (false, Some(address)) = (args.json, address) {
        output::note(&welcome(address, &name, template.is_some()));
    }
    let death = cluster.death();
    std::thread::spawn(move || {
        if let Some(how) = death() {
            output::note(&format!(
                "brigade: {how}; requests get an error until the lab is started again"
            ));
        }
    });
    let signal = signals.wait();
    let failed = cluster.instance.failure().is_some();
    if !args.json {
        output::note(&format!("{signal}: shutting down"));
    }
    drop(cluster);
    if let Some(server) = server {
        server.stop();
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn ready_line(cluster: &Cluster, api: Option<SocketAddr>) -> Value {
    let node = |node: &NodeInfo| {
        json!({
            "name": node.name,
            "pid": node.pid,
            "stage_pid": node.stage_pid,
            "layers": node.layers,
            "bytes": node.bytes,
        })
    };
    let mut line = json!({
        "schema": "brigade.lab/1",
        "api": api.map(|address| format!("http://{address}")),
        "nodes": cluster.nodes.iter().map(node).collect::<Vec<_>>(),
    });
    if let Some(client) = &cluster.client {
        line["client"] = node(client);
    }
    line
}

fn answer(
    cluster: &Cluster,
    spec: &ClusterSpec,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    question: &str,
    args: &Args,
) -> anyhow::Result<()> {
    let tokens = model::conversation(&[model::user(question)], template, tokenizer)?;
    let prompt_tokens = tokens.len();
    let start = Instant::now();
    let prompt = Prompt::greedy(tokens, args.max_tokens, End::Respected);
    let mut answer = cluster.instance.submit(prompt)?;
    let told = output::stream(&mut answer, start, !args.json)?;
    // Of an answer of a few tokens, the speed is chance. What the planner cannot say is no reason
    // to fail.
    let context = prompt_tokens as u32 + told.tokens;
    let predicted = spec
        .threads
        .filter(|_| told.tokens >= LEAST_TOKENS)
        .and_then(|threads| {
            predicted::decode_tok_s(&spec.source, threads, context).unwrap_or_default()
        });
    if args.json {
        let line = json!({
            "schema": "brigade.answer/1",
            "text": told.text,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": told.tokens,
            "ttft_s": told.first.as_secs_f64(),
            "decode_tok_s": told.decode_tok_s(),
            "predicted_decode_tok_s": predicted,
        });
        output::line(&line.to_string())?;
    } else {
        output::note(&told.summary(prompt_tokens));
        if let Some(predicted) = predicted {
            output::note(&predicted::line(&predicted, told.decode_tok_s()));
        }
    }
    Ok(())
}

fn welcome(address: SocketAddr, model: &str, chats: bool) -> String {
    let (route, input) = if chats {
        (
            "chat/completions",
            r#""messages": [{"role": "user", "content": "Hello!"}]"#,
        )
    } else {
        ("completions", r#""prompt": "Once upon a time""#)
    };
    format!(
        r#"
Serving at http://{address}/v1 until Ctrl-C. Try:

  curl http://{address}/v1/{route} -H 'content-type: application/json' \
    -d '{{"model": "{model}", {input}, "temperature": 0}}'
  brigade parity MODEL --stages 4      whole against staged, bit for bit
  brigade bench                        what the stages cost"#
    )
}
