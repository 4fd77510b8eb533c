//! `brigade lab`: a throwaway cluster on this machine.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use brigade_api::{ChatTemplate, Settings};
use brigade_node::{Cluster, End, NodeInfo, Prompt, Tokenizer};
use serde_json::{Value, json};

use crate::access::Access;
use crate::backend::LocalBackend;
use crate::model::{self, Engine};
use crate::output;
use crate::signals::Signals;

/// Where the API listens when nobody says otherwise and the port is free.
const USUAL_API: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8811);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many nodes
    #[arg(long, default_value_t = 4, value_name = "N")]
    nodes: u32,
    /// A GGUF file, or the first of several [default: the demo model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Address of the OpenAI-compatible API [default: 127.0.0.1:8811, or any free port]
    #[arg(long, value_name = "ADDR")]
    api: Option<SocketAddr>,
    #[command(flatten)]
    access: Access,
    /// A file with another chat template than the model's own (Jinja)
    #[arg(long, value_name = "PATH")]
    chat_template: Option<PathBuf>,
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
    let placement = model::placement(&source, args.nodes, args.engine)?;
    let listener = match (&args.once, args.api) {
        (Some(_), None) => None,
        (_, address) => Some(listen(address, args.access.api_key_file.is_some())?),
    };
    let settings = args.access.settings()?;
    let name = model::name(&source);
    let (layers, architecture) = (
        source.header().block_count()?,
        source.header().architecture()?.to_owned(),
    );
    let tokenizer = Tokenizer::start(&path)?;
    let template = model::chat_template(&source, args.chat_template.as_deref(), tokenizer.facts())?;
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
        answer(&cluster, &tokenizer, template.as_ref(), question, args)?;
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

fn listen(asked: Option<SocketAddr>, has_keys: bool) -> anyhow::Result<TcpListener> {
    let Some(address) = asked else {
        return TcpListener::bind(USUAL_API)
            .or_else(|_| {
                output::note(&format!(
                    "port {} is taken: using another",
                    USUAL_API.port()
                ));
                TcpListener::bind((USUAL_API.ip(), 0))
            })
            .context("cannot listen on this machine's loopback address");
    };
    if !address.ip().is_loopback() && !has_keys {
        bail!(
            "without keys the API listens on loopback only: use 127.0.0.1:{}, or make a key with \
             `brigade key` and name its file with --api-key-file",
            address.port()
        );
    }
    TcpListener::bind(address).with_context(|| {
        format!("cannot listen at {address}; choose another port with --api, 0 for any")
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
    if args.json {
        let line = json!({
            "schema": "brigade.answer/1",
            "text": told.text,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": told.tokens,
            "ttft_s": told.first.as_secs_f64(),
            "decode_tok_s": told.decode_tok_s(),
        });
        output::line(&line.to_string())?;
    } else {
        output::note(&told.summary(prompt_tokens));
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

/// The HTTP server on a runtime of its own.
struct Server {
    runtime: tokio::runtime::Runtime,
    stop: tokio::sync::oneshot::Sender<()>,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn start(
        listener: TcpListener,
        backend: LocalBackend,
        template: Option<ChatTemplate>,
        settings: Settings,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let router = brigade_api::router(Arc::new(backend), template, settings);
        let served = runtime.spawn(brigade_api::serve(listener, router, async {
            // A dropped sender means the same as a message.
            let _ = stopped.await;
        }));
        Ok(Self {
            runtime,
            stop,
            served,
        })
    }

    fn stop(self) {
        let _ = self.stop.send(());
        match self.runtime.block_on(self.served) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => output::note(&format!("brigade: the API stopped: {error}")),
            Err(error) => output::note(&format!("brigade: the API stopped: {error}")),
        }
        // A request that is still being tokenized is not waited for.
        self.runtime.shutdown_background();
    }
}
