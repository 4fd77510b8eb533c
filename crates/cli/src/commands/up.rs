//! `brigade up`: this machine's node, in the foreground.

mod serving;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use brigade_node::control::{ControlListener, Conversation};
use brigade_node::{Daemon, DaemonConfig, Home};
use brigade_wire::token::Token;
use serde_json::json;

use crate::control::{Invited, Reply, Request};
use crate::output;
use crate::server::ApiArgs;
use crate::signals::Signals;
use serving::{Api, Serving};

/// The port of a node where nothing else is said and it is free.
pub(super) const USUAL_PORT: u16 = 8810;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where other nodes reach this machine [default: as before; with --join the address of this
    /// machine that faces the inviting node; else 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    serving: ApiArgs,
    /// What this node is called [default: the machine's name]
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
        match self.serving.paths().find(|path| path.is_relative()) {
            Some(path) => bail!(
                "{} is looked for in no folder: name it by an absolute path",
                path.display()
            ),
            None => Ok(()),
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let settings = args.serving.settings()?;
    let template = args.serving.chat_template()?;
    let home = Home::open(&brigade_node::home_dir()?)?;
    let listener = listen(args, &home)?;
    let api = Api {
        listener: args.serving.listen(&settings)?,
        settings,
        template,
    };
    let api_address = api.listener.local_addr()?;
    let commands = ControlListener::bind(home.folder())?;
    let id = home.identity().id();
    let name = args.name.clone().unwrap_or_else(machine_name);
    let daemon = Arc::new(Daemon::start(DaemonConfig {
        home,
        name: name.clone(),
        build: brigade_llama::build(),
        cache: brigade_node::cache_dir()?,
        listener,
    })?);
    if let Some(token) = &args.join {
        let inviter = daemon.join(token)?;
        output::note(&format!("joined the cluster of {inviter}"));
    }
    let serving = Arc::new(Serving::start(Arc::clone(&daemon), api)?);
    let signals = Signals::catch()?;
    if args.json {
        let line = json!({
            "schema": "brigade.up/1",
            "id": id.to_string(),
            "name": name,
            "listen": daemon.address(),
            "api": format!("http://{api_address}"),
        });
        output::line(&line.to_string())?;
    } else {
        output::note(&welcome(&daemon, &name, api_address));
    }
    let (answering, asked) = (Arc::clone(&serving), Arc::clone(&daemon));
    thread::spawn(move || {
        while let Ok(conversation) = commands.accept() {
            let (serving, daemon) = (Arc::clone(&answering), Arc::clone(&asked));
            thread::spawn(move || converse(conversation, &daemon, &serving));
        }
    });
    let signal = signals.wait();
    if !args.json {
        output::note(&format!("{signal}: shutting down"));
    }
    serving.stop();
    // The threads that answer commands hold the daemon as well; the process ends with this one.
    daemon.stop();
    Ok(ExitCode::SUCCESS)
}

/// Takes the address that was asked for. Where none was, one that is taken is no obstacle.
fn listen(args: &Args, home: &Home) -> anyhow::Result<TcpListener> {
    if let Some(address) = args.listen {
        return TcpListener::bind(address).with_context(|| {
            format!(
                "cannot listen at {address}; choose another address with --listen, port 0 for any"
            )
        });
    }
    let own = home.identity().public();
    let members = home.members()?;
    let alone = members.present().all(|member| member.key == own);
    let address = match (members.get(own), &args.join) {
        (Some(member), None) if !alone => member.address,
        (_, Some(token)) => SocketAddr::new(facing(token)?, USUAL_PORT),
        _ => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), USUAL_PORT),
    };
    TcpListener::bind(address)
        .or_else(|_| TcpListener::bind((address.ip(), 0)))
        .with_context(|| {
            format!("cannot listen at {address}; name an address of this machine with --listen")
        })
}

/// The address of this machine that faces the inviting node. Nothing is sent.
fn facing(token: &Token) -> anyhow::Result<IpAddr> {
    let address = token
        .addresses
        .first()
        .context("the token has no address")?;
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let local = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(address)?;
        socket.local_addr()
    };
    let local = local().with_context(|| {
        format!("no way to {address}, where the inviting node is; name an address with --listen")
    })?;
    Ok(local.ip())
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
    let address = daemon.address();
    let reach = if address.ip().is_loopback() {
        " (only nodes on this machine reach it; --listen ADDR is for others)"
    } else {
        ""
    };
    format!(
        "{name} is up at {address}{reach}, the API at http://{api}/v1, until Ctrl-C. Then:\n\n  \
         brigade invite         the line for the next machine\n  \
         brigade nodes          the cluster\n  \
         brigade load MODEL     run a model on it"
    )
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
                listen: daemon.address(),
                seconds,
            })
        }
        Request::Join(token) => Reply::Joined(daemon.join(&token.parse()?)?),
        Request::Nodes => Reply::Nodes(daemon.nodes()),
        Request::Forget(node) => Reply::Forgot(daemon.forget(&node)?),
        Request::Load(order) => Reply::Serving(serving.load(&order, |line| {
            // Whoever asked may be gone; the model is loaded all the same.
            let _ = conversation.say(&Reply::Progress(line));
        })?),
        Request::Unload => Reply::Unloaded(serving.unload()?),
        Request::Ps => Reply::Running(serving.running()),
    })
}
