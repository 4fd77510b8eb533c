//! `brigade lab`: a throwaway cluster on this machine, of daemons as `brigade up` starts them.

mod folder;
mod links;
mod nodes;
mod predicted;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io, thread};

use anyhow::bail;
use brigade_fit::evidence::Estimate;
use brigade_gguf::Source;
use brigade_hub::ModelRef;
use brigade_node::Placement;
use serde_json::{Value, json};

use crate::control::{LoadOrder, Reply, Request, Running, StageView};
use crate::devices::DeviceArgs;
use crate::model::{self, Decoding, Engine};
use crate::output::{self, Told};
use crate::server::ApiArgs;
use crate::signals::Signals;
use folder::Folder;
use nodes::Nodes;
use predicted::Predicted;

/// Tokens of an answer whose speed is worth comparing with a prediction.
const LEAST_TOKENS: u32 = 16;

/// What is asked where only the speed counts, and the most tokens of an answer to that.
const QUESTION: &str = "Tell me a long story about a bucket brigade.";
const TRIAL_TOKENS: u32 = 64;

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
    #[command(flatten)]
    devices: DeviceArgs,
    /// Context of one sequence, in tokens [default: the model's own, 4096 at most]
    #[arg(long, value_name = "N")]
    ctx: Option<u32>,
    #[command(flatten)]
    decoding: Decoding,
    /// How the nodes work together [default: stages, where they support the model]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// Threads of each stage [default: the cores divided by the nodes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Links that behave so, between all nodes or two of them: tb5, wifi6 and what else
    /// `brigade names links` shows, or rtt=0.3ms,bw=40gbit,jitter=0.05ms; 1-2:10gbe for a pair
    #[arg(long, value_name = "[A-B:]LINK")]
    link: Vec<String>,
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
    args.devices.apply();
    // What cannot work is said before anything starts.
    let path = model::path(args.model.as_deref())?;
    let source = model::open(&path)?;
    let context_tokens = model::context(&source, args.ctx)?;
    args.decoding.check(&source)?;
    let (placement, remark) = model::placement(&source, args.nodes, args.engine)?;
    let threads = model::threads(args.threads, args.nodes)?;
    let wiring = links::wiring(&args.link, args.nodes)?;
    args.serving.settings()?;
    args.serving.chat_template()?;
    if let Some(remark) = remark {
        output::note(&remark);
    }

    let folder = Folder::make()?;
    let interrupted = Interrupted::new(folder.path().to_owned())?;
    let api = match (&args.once, args.serving.api) {
        (Some(_), None) => vec!["--api".into(), "127.0.0.1:0".into()],
        _ => args.serving.options(),
    };
    let served = args.once.is_none() || args.serving.api.is_some();
    let mut nodes = Nodes::start(folder, args.nodes, api, wiring.as_ref())?;
    let order = LoadOrder {
        context: args.ctx,
        decoding: args.decoding,
        engine: args.engine,
        ..order(&source, placement, threads, &nodes)
    };
    let running = load(&nodes, order)?;
    let question = args.once.as_ref().or(args.ask.as_ref());
    if question.is_none() {
        // Before it is told: whoever reads that it is ready may end it at once.
        interrupted.serves();
    }
    if args.json {
        output::line(&ready_line(&nodes, &running, served).to_string())?;
    } else {
        output::note(&format!(
            "{}: {}, {} layers over {} nodes, {} sequences of {context_tokens} tokens\n{}{}",
            running.model,
            source.header().architecture()?,
            source.header().block_count()?,
            args.nodes,
            args.decoding.streams,
            table(&nodes, &running).trim_end(),
            links::told(wiring.as_ref()),
        ));
    }
    if let Some(question) = question {
        let (prompt_tokens, told) = answer(&nodes, question, args)?;
        // Of an answer of a few tokens, the speed is chance. What the planner cannot say is no
        // reason to fail.
        let context = prompt_tokens as u32 + told.tokens / 2;
        let predicted = (told.tokens >= LEAST_TOKENS)
            .then(|| {
                let wiring = wiring.as_ref();
                predicted::decode_tok_s(&source, threads, context, &running, wiring, None)
            })
            .and_then(Result::unwrap_or_default);
        let predicted = predicted.as_ref().map(|predicted| &predicted.decode_tok_s);
        report(args, prompt_tokens, &told, predicted)?;
    }
    if args.once.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    if !args.json {
        output::note(&welcome(&nodes, &running));
    }
    nodes.mourn();
    let signal = interrupted.wait();
    if !args.json {
        output::note(&format!("{signal}: shutting down"));
    }
    Ok(if nodes.have_failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// An order for a model over all nodes: evenly, and not by the memory that each node happens to see,
/// as they are one machine.
fn order(source: &Source, placement: Placement, threads: u32, nodes: &Nodes) -> LoadOrder {
    let ranges = match placement {
        Placement::Stages(ranges) | Placement::Rpc(ranges) => ranges,
        Placement::Whole => Vec::new(),
    };
    let given = ranges.iter().map(|layers| (layers.start, layers.end));
    LoadOrder {
        model: ModelRef::Path(source.path().to_owned()),
        header: None,
        on: nodes.names().map(|name| (name, None)).collect(),
        given: nodes.names().zip(given).collect(),
        context: None,
        decoding: Decoding::alone(0),
        threads: Some(threads),
        engine: None,
        stages: Vec::new(),
    }
}

fn load(nodes: &Nodes, order: LoadOrder) -> anyhow::Result<Running> {
    let reply = nodes.ask(&Request::Load(order), output::status);
    output::progress_done();
    match reply? {
        Reply::Serving(running) => Ok(running),
        _ => bail!("the nodes answered something else than was asked"),
    }
}

/// A lab that only measures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial<'a> {
    pub(super) model: &'a Path,
    pub(super) nodes: u32,
    pub(super) threads: u32,
    /// As `--link` has them.
    pub(super) links: &'a [String],
    pub(super) answers: u32,
}

impl Trial<'_> {
    /// Fails where the model or the links are none.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let source = model::open(self.model)?;
        model::placement(&source, self.nodes, Some(Engine::Stages))?;
        links::wiring(self.links, self.nodes)?;
        Ok(())
    }

    /// What the planner predicts of an answer, by what it knows without this model, and each answer's
    /// tokens a second.
    pub(super) fn run(&self) -> anyhow::Result<(Option<Predicted>, Vec<f64>)> {
        let source = model::open(self.model)?;
        let (placement, _) = model::placement(&source, self.nodes, Some(Engine::Stages))?;
        let wiring = links::wiring(self.links, self.nodes)?;
        let folder = Folder::make()?;
        let _interrupted = Interrupted::new(folder.path().to_owned())?;
        let api = vec!["--api".into(), "127.0.0.1:0".into()];
        let nodes = Nodes::start(folder, self.nodes, api, wiring.as_ref())?;
        let order = order(&source, placement, self.threads, &nodes);
        let running = load(&nodes, order)?;
        let mut measured = Vec::new();
        let mut context = 0;
        // The first answer warms up.
        for answer in 0..=self.answers {
            let (prompt_tokens, told) = ask(&nodes, QUESTION, TRIAL_TOKENS, |_| {})?;
            context = prompt_tokens as u32 + told.tokens / 2;
            if told.tokens < LEAST_TOKENS {
                bail!(
                    "the model answers with {} tokens, too few to be timed",
                    told.tokens
                );
            }
            if answer > 0 {
                measured.push(told.decode_tok_s());
            }
        }
        let wiring = wiring.as_ref();
        let (threads, own) = (self.threads, Some(running.model.as_str()));
        let predicted = predicted::decode_tok_s(&source, threads, context, &running, wiring, own)?;
        Ok((predicted, measured))
    }
}

/// What a signal does: until the lab only serves, it ends the program at once, and the nodes end
/// with it.
struct Interrupted {
    serving: Arc<AtomicBool>,
    signals: std::sync::mpsc::Receiver<&'static str>,
}

impl Interrupted {
    fn new(folder: PathBuf) -> io::Result<Self> {
        let signals = Signals::catch()?;
        let serving = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = std::sync::mpsc::channel();
        let waits = Arc::clone(&serving);
        thread::spawn(move || {
            let signal = signals.wait();
            if !waits.load(Ordering::SeqCst) {
                let _ = fs::remove_dir_all(&folder);
                // The shell's convention for a process that Ctrl-C ended.
                std::process::exit(130);
            }
            let _ = sender.send(signal);
        });
        Ok(Self {
            serving,
            signals: receiver,
        })
    }

    /// From now on the lab only serves.
    fn serves(&self) {
        self.serving.store(true, Ordering::SeqCst);
    }

    fn wait(&self) -> &'static str {
        self.serves();
        self.signals.recv().unwrap_or("interrupted")
    }
}

fn ready_line(nodes: &Nodes, running: &Running, served: bool) -> Value {
    let stage = |stage: &StageView| {
        json!({
            "name": stage.node,
            "pid": nodes.pid(&stage.node),
            "stage_pid": stage.pid,
            "layers": stage.layers,
            "bytes": stage.bytes,
            "home": nodes.home(&stage.node),
        })
    };
    let mut line = json!({
        "schema": "brigade.lab/1",
        "api": served.then(|| format!("http://{}", running.api)),
        "nodes": running.stages.iter().map(stage).collect::<Vec<_>>(),
    });
    if let Some(client) = &running.client {
        line["client"] = json!({ "name": client.node, "stage_pid": client.pid });
    }
    line
}

/// Who computes what.
fn table(nodes: &Nodes, running: &Running) -> String {
    let row = |cells: [String; 7]| {
        let [node, pid, stage, layers, file, kv, compute] = cells;
        format!("{node:<8} {pid:>8} {stage:>9} {layers:>9} {file:>10} {kv:>10} {compute:>10}\n")
    };
    let titles = [
        "node",
        "pid",
        "stage pid",
        "layers",
        "file",
        "KV cache",
        "compute",
    ];
    let mut table = row(titles.map(str::to_owned));
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), output::bytes);
    for stage in running.stages.iter().chain(&running.client) {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table += &row([
            stage.node.clone(),
            or_none(nodes.pid(&stage.node).map(|pid| pid.to_string())),
            stage.pid.to_string(),
            or_none(stage.layers.map(|layers| layers.to_string())),
            size(stage.bytes),
            size(stage.memory.map(|memory| memory.kv_bytes)),
            size(stage.memory.map(|memory| memory.compute_bytes)),
        ]);
    }
    table
}

/// Asks, and prints the answer as it comes, where people read it.
fn answer(nodes: &Nodes, question: &str, args: &Args) -> anyhow::Result<(usize, Told)> {
    let mut written = Ok(());
    let answered = ask(nodes, question, args.max_tokens, |text| {
        if !args.json && written.is_ok() {
            written = output::piece(text);
        }
    });
    written?;
    answered
}

fn ask(
    nodes: &Nodes,
    question: &str,
    max_tokens: u32,
    show: impl FnMut(&str),
) -> anyhow::Result<(usize, Told)> {
    let request = Request::Ask {
        question: question.to_owned(),
        max_tokens,
    };
    match nodes.ask(&request, show)? {
        Reply::Answered {
            prompt_tokens,
            told,
        } => Ok((prompt_tokens, told)),
        _ => bail!("the nodes answered something else than was asked"),
    }
}

fn report(
    args: &Args,
    prompt_tokens: usize,
    told: &Told,
    predicted: Option<&Estimate>,
) -> anyhow::Result<()> {
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
            output::note(&predicted::line(predicted, told.decode_tok_s()));
        }
    }
    Ok(())
}

fn welcome(nodes: &Nodes, running: &Running) -> String {
    let (api, model) = (running.api, &running.model);
    let (route, input) = if running.chats {
        (
            "chat/completions",
            r#""messages": [{"role": "user", "content": "Hello!"}]"#,
        )
    } else {
        ("completions", r#""prompt": "Once upon a time""#)
    };
    let home = nodes.gateway_home().display();
    format!(
        r#"
Serving at http://{api}/v1 until Ctrl-C. Try:

  curl http://{api}/v1/{route} -H 'content-type: application/json' \
    -d '{{"model": "{model}", {input}, "temperature": 0}}'
  export BRIGADE_HOME={home}
  brigade nodes                        ps, load and unload ask this cluster as well
  brigade parity MODEL --stages 4      whole against staged, bit for bit
  brigade bench                        what the stages cost"#
    )
}
