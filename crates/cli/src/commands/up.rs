//! `brigade up`: this machine's node, in the foreground.

mod calibrating;
mod probe;
mod serving;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use brigade_node::control::{ControlListener, Conversation};
use brigade_node::{Daemon, DaemonConfig, Discovery, Home, Ports, child};
use brigade_wire::token::Token;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::control::{Invited, Reply, Request};
use crate::devices::DeviceArgs;
use crate::output;
use crate::server::ApiArgs;
use crate::signals::Signals;
use calibrating::Calibrate;
pub(crate) use serving::pins;
use serving::{Api, Serving, Shelf};

/// The port of a node where nothing else is said.
pub(super) const USUAL_PORT: u16 = 8810;

/// The ports of its stages.
pub(super) const STAGE_PORTS: Ports = Ports {
    first: 8820,
    last: 8839,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where other nodes reach this machine: one address, 0.0.0.0 or `[::]` for all; without a port,
    /// 8810 [default: as last time, at first all addresses]
    #[arg(long, value_name = "IP[:PORT]", value_parser = listen_address)]
    listen: Option<SocketAddr>,
    /// The ports of this node's stages, where others connect to it [default: 8820-8839, on
    /// loopback any]
    #[arg(long, value_name = "FIRST-LAST")]
    stage_ports: Option<Ports>,
    /// Neither announce this node on the local networks nor look for others there
    #[arg(long)]
    no_discovery: bool,
    #[command(flatten)]
    serving: ApiArgs,
    #[command(flatten)]
    devices: DeviceArgs,
    /// Do not measure the machine while nothing runs on it, where `brigade calibrate` has not
    #[arg(long)]
    no_calibrate: bool,
    /// Load a model that a request names and that is not loaded, if it is in this folder and fits
    /// comfortably
    #[arg(long, value_name = "DIR")]
    load_on_request: Option<PathBuf>,
    /// The most of models in the cache folder, such as 200GB: what was used least recently is dropped
    /// for what comes, and nothing that is needed [default: `BRIGADE_CACHE_LIMIT`, else none]
    #[arg(long, value_name = "SIZE", value_parser = crate::cache::size)]
    cache_limit: Option<u64>,
    /// What this node is called [default: as it was called last, else the machine's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Join the cluster that this token of `brigade invite` is for
    #[arg(long, value_name = "TOKEN")]
    join: Option<Token>,
    /// Print one line of JSON when the node is up
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Refuses what a service cannot have: it starts again and again, and in no folder of its own.
    pub(crate) fn must_be_repeatable(&self) -> anyhow::Result<()> {
        if self.join.is_some() {
            bail!(
                "a token is good once and a service starts often: install it without --join, \
                 then `brigade join TOKEN`"
            );
        }
        let folder = self.load_on_request.as_deref();
        let mut paths = self.serving.paths().chain(folder);
        match paths.find(|path| path.is_relative()) {
            Some(path) => bail!(
                "{} is looked for in no folder: name it by an absolute path",
                path.display()
            ),
            None => Ok(()),
        }
    }
}

/// After a command could not be heard.
const DEAF: Duration = Duration::from_millis(100);

/// What a daemon tells a lab that has started it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// It takes commands.
    Up,
    /// It cannot start.
    Failed(String),
    /// The model that it serves does not answer any more.
    Lost(String),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match serve(args) {
        Err(error) if child::has_parent() => {
            child::report(&Report::Failed(format!("{error:#}")));
            Ok(ExitCode::FAILURE)
        }
        result => result,
    }
}

fn serve(args: &Args) -> anyhow::Result<ExitCode> {
    let in_lab = child::has_parent();
    let released = in_lab.then(Signals::of_child).transpose()?;
    args.devices.apply();
    args.devices.check()?;
    let settings = args.serving.settings()?;
    let template = args.serving.chat_template()?;
    let shelf = args.load_on_request.as_deref().map(Shelf::open);
    let shelf = shelf.transpose()?;
    let home = Home::open(&brigade_node::home_dir()?)?;
    let listener = listen(args, &home)?;
    let stage_ports = stage_ports(args, &listener)?;
    let api = Api {
        listener: args.serving.listen(&settings)?,
        settings,
        template,
        shelf,
    };
    let api_address = api.listener.local_addr()?;
    let commands = ControlListener::bind(home.folder())?;
    let id = home.identity().id();
    let own = home.identity().public();
    // As it was called last.
    let known = home.members()?.get(own).map(|own| own.name.clone());
    let name = args.name.clone().or(known).unwrap_or_else(machine_name);
    let daemon = Arc::new(Daemon::start(DaemonConfig {
        home,
        name: name.clone(),
        build: brigade_llama::build(),
        cache: crate::cache::cache(args.cache_limit)?,
        hub: crate::hub::client(),
        listener,
        stage_ports,
        discovery: if args.no_discovery {
            Discovery::Off
        } else {
            Discovery::On
        },
    })?);
    if let Some(token) = &args.join {
        let inviter = daemon.join(token)?;
        output::note(&format!("joined the cluster of {inviter}"));
    }
    let catalog = Arc::new(crate::planner::catalog(None)?);
    // A lab's nodes would disturb each other.
    let calibrate = if args.no_calibrate || in_lab {
        Calibrate::Never
    } else {
        Calibrate::WhenIdle
    };
    probe::start(Arc::clone(&daemon), Arc::clone(&catalog), calibrate);
    let serving = Arc::new(Serving::start(Arc::clone(&daemon), catalog, api)?);
    let signals = released.map_or_else(Signals::catch, Ok)?;
    if in_lab {
        child::report(&Report::Up);
    } else if args.json {
        let line = json!({
            "schema": "brigade.up/1",
            "id": id.to_string(),
            "name": name,
            "listen": daemon.listens(),
            "addresses": daemon.addresses(),
            "api": format!("http://{api_address}"),
        });
        output::line(&line.to_string())?;
    } else {
        output::note(&welcome(&daemon, &name, api_address));
    }
    let (answering, asked) = (Arc::clone(&serving), Arc::clone(&daemon));
    thread::spawn(move || {
        loop {
            let conversation = match commands.accept() {
                Ok(conversation) => conversation,
                Err(error) => {
                    // Too many open files, or a command that is gone already: neither lasts.
                    tracing::warn!(%error, "cannot hear commands");
                    thread::sleep(DEAF);
                    continue;
                }
            };
            let (serving, daemon) = (Arc::clone(&answering), Arc::clone(&asked));
            thread::spawn(move || converse(conversation, &daemon, &serving));
        }
    });
    let signal = signals.wait();
    if !args.json && !in_lab {
        output::note(&format!("{signal}: shutting down"));
    }
    serving.stop();
    // The threads that answer commands hold the daemon as well; the process ends with this one.
    daemon.stop();
    Ok(ExitCode::SUCCESS)
}

/// Reads an address with or without a port.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    text.parse()
        .or_else(|_| {
            let ip = bare.unwrap_or(text).parse::<IpAddr>();
            ip.map(|ip| SocketAddr::new(ip, USUAL_PORT))
        })
        .map_err(|_| "not an address such as 192.168.1.10:8810, 0.0.0.0 or [::]".to_owned())
}

/// Takes the address that was named, now or the last time; else all of this machine.
fn listen(args: &Args, home: &Home) -> anyhow::Result<TcpListener> {
    let named = match args.listen {
        Some(address) => Some(address),
        None => home.listen()?,
    };
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, USUAL_PORT));
    let listener = match (named, TcpListener::bind(named.unwrap_or(everywhere))) {
        // A machine without IPv6.
        (None, Err(error)) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, USUAL_PORT))
        }
        (_, result) => result,
    };
    let address = named.unwrap_or(everywhere);
    let listener = listener.with_context(|| {
        format!(
            "cannot listen at {address}; choose another address or port with --listen, port 0 \
             for any"
        )
    })?;
    if args.listen.is_some() {
        // Port 0 gave some port, which the others know from now on.
        home.keep_listen(listener.local_addr()?)?;
    }
    Ok(listener)
}

/// The ports of stages: few of them, for firewalls, where other machines connect.
fn stage_ports(args: &Args, listener: &TcpListener) -> anyhow::Result<Option<Ports>> {
    let inside = listener.local_addr()?.ip().is_loopback();
    Ok(args.stage_ports.or((!inside).then_some(STAGE_PORTS)))
}

fn machine_name() -> String {
    let machine = rustix::system::uname();
    let name = machine.nodename().to_string_lossy();
    let name = name.split('.').next().unwrap_or_default();
    let name: String = name
        .chars()
        .map(|character| {
            if character.is_alphanumeric() {
                character
            } else {
                '-'
            }
        })
        .collect();
    if name.is_empty() {
        "node".to_owned()
    } else {
        name
    }
}

fn welcome(daemon: &Daemon, name: &str, api: SocketAddr) -> String {
    let addresses = daemon.addresses();
    let reach = if only_inside(&addresses) {
        " (only nodes on this machine reach it)"
    } else {
        ""
    };
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let address = addresses.join(", ");
    format!(
        "{name} is up at {address}{reach}, the API at http://{api}/v1, until Ctrl-C. Then:\n\n  \
         brigade invite         the line for the next machine\n  \
         brigade nodes          the cluster\n  \
         brigade load MODEL     run a model on it"
    )
}

/// Whether no other machine reaches any of these.
pub(crate) fn only_inside(addresses: &[SocketAddr]) -> bool {
    addresses.iter().all(|address| address.ip().is_loopback())
}

/// Does what a command asks for.
fn converse(mut conversation: Conversation, daemon: &Daemon, serving: &Serving) {
    let request = match conversation.hear::<Request>() {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(error) => {
            let _ = conversation.say(&Reply::Failed(format!(
                "the daemon does not understand this command: {error}; start it again with the \
                 same version of brigade"
            )));
            return;
        }
    };
    let reply = obey(request, daemon, serving, &mut conversation);
    // A command that was broken off needs no answer.
    let _ = conversation.say(&reply.unwrap_or_else(|error| Reply::Failed(format!("{error:#}"))));
}

fn obey(
    request: Request,
    daemon: &Daemon,
    serving: &Serving,
    conversation: &mut Conversation,
) -> anyhow::Result<Reply> {
    Ok(match request {
        Request::Invite { seconds } => {
            if seconds == 0 {
                bail!("an invitation for no time invites nobody");
            }
            Reply::Invited(Invited {
                token: daemon.invite(Duration::from_secs(seconds)).to_string(),
                addresses: daemon.addresses(),
                seconds,
            })
        }
        Request::Join(token) => Reply::Joined(daemon.join(&token.parse()?)?),
        Request::Nodes => Reply::Nodes {
            nodes: daemon.nodes(),
            nearby: daemon.nearby(),
        },
        Request::Links => Reply::Links(daemon.links()),
        Request::Forget(node) => {
            let node = daemon.forget(&node)?;
            let models = serving.left_by(&node);
            Reply::Forgot { node, models }
        }
        Request::Plan { order, dry_run } => {
            Reply::Planned(Box::new(serving.plan(&order, dry_run)?))
        }
        Request::Load(order) => Reply::Serving(serving.load(order, |line| {
            // Whoever asked may be gone; the model is loaded all the same.
            let _ = conversation.say(&Reply::Progress(line));
        })?),
        Request::Unload(model) => Reply::Unloaded(serving.unload(model.as_deref())?),
        Request::Ps => Reply::Running {
            here: serving.running(),
            elsewhere: serving.elsewhere(),
        },
        Request::Cache => Reply::Cache(daemon.cache_rules()),
        Request::Ask {
            question,
            max_tokens,
        } => {
            let show = |text: &str| Ok(conversation.say(&Reply::Progress(text.to_owned()))?);
            let (prompt_tokens, told) = serving.answer(&question, max_tokens, show)?;
            Reply::Answered {
                prompt_tokens,
                told,
            }
        }
    })
}
