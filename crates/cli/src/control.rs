//! What commands and the daemon say to each other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use brigade_gguf::Layers;
use brigade_hub::ModelRef;
use brigade_node::control::Conversation;
use brigade_node::{Cache, LinkView, Memory, NearbyNode, NodeView};
use serde::{Deserialize, Serialize};

use crate::model::{Decoding, Engine};
use crate::output::Told;
use crate::placing::{Placed, PlacedStage};

/// What a command wants.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// A token.
    Invite {
        /// For so long.
        seconds: u64,
    },
    /// To join with this token.
    Join(String),
    /// The cluster.
    Nodes,
    /// The ways between its nodes.
    Links,
    /// A node to go.
    Forget(String),
    /// Where a model would go.
    Plan {
        /// The model.
        order: LoadOrder,
        /// Only to know it: it may be loaded already.
        dry_run: bool,
    },
    /// A model to run.
    Load(LoadOrder),
    /// A model to go, by its name; without one, the only one.
    Unload(Option<String>),
    /// What runs.
    Ps,
    /// The cache of the node, and its limit.
    Cache,
    /// An answer of the model that is loaded, the likeliest.
    Ask {
        /// Of a person.
        question: String,
        /// The most tokens of it.
        max_tokens: u32,
    },
}

/// A model and where to run it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LoadOrder {
    /// What it is; a path is absolute.
    pub(crate) model: ModelRef,
    /// Where the coordinator has it, or its header, if it was not named by a path: it stays this
    /// version.
    pub(crate) header: Option<PathBuf>,
    /// The nodes in order of layers, each with the file's path there if it is another one, or
    /// `all`; empty for those that the planner takes.
    pub(crate) on: Vec<(String, Option<PathBuf>)>,
    /// Context of one sequence, in tokens.
    pub(crate) context: Option<u32>,
    /// How answers are computed.
    pub(crate) decoding: Decoding,
    /// Threads of each stage.
    pub(crate) threads: Option<u32>,
    /// How the nodes work together, if not in the usual way.
    pub(crate) engine: Option<Engine>,
    /// Nodes with their layers, by a plan that somebody gave.
    pub(crate) given: Vec<(String, (u32, u32))>,
    /// The stages as they were placed; empty until they are.
    pub(crate) stages: Vec<PlacedStage>,
}

/// What the daemon answers; all but [`Reply::Progress`] are its last word.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Something is under way: a line, or a piece of an answer.
    Progress(String),
    /// To [`Request::Invite`].
    Invited(Invited),
    /// To [`Request::Join`]: the inviter's name.
    Joined(String),
    /// To [`Request::Nodes`].
    Nodes {
        /// The members.
        nodes: Vec<NodeView>,
        /// Others, as they announce themselves.
        nearby: Vec<NearbyNode>,
    },
    /// To [`Request::Links`].
    Links(Vec<LinkView>),
    /// To [`Request::Forget`].
    Forgot {
        /// Its name.
        node: String,
        /// Models with a stage there, which this node coordinates.
        models: Vec<String>,
    },
    /// To [`Request::Plan`].
    Planned(Box<Placed>),
    /// To [`Request::Load`].
    Serving(Running),
    /// To [`Request::Unload`]: its name.
    Unloaded(String),
    /// To [`Request::Ps`].
    Running {
        /// Models that this node coordinates.
        here: Vec<Running>,
        /// Names of others, with their nodes.
        elsewhere: Vec<(String, String)>,
    },
    /// To [`Request::Cache`].
    Cache(Cache),
    /// To [`Request::Ask`], after its pieces in [`Reply::Progress`].
    Answered {
        /// Of the question.
        prompt_tokens: usize,
        /// What came.
        told: Told,
    },
    /// It cannot be done.
    Failed(String),
}

/// An invitation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Invited {
    pub(crate) token: String,
    /// Where the inviting node is found.
    pub(crate) addresses: Vec<SocketAddr>,
    /// How long the token is good.
    pub(crate) seconds: u64,
}

/// A model that runs on the cluster, with this node as its gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    /// What requests call it.
    pub(crate) model: String,
    /// Context of one sequence, in tokens.
    pub(crate) context_tokens: u32,
    /// Where it is served.
    pub(crate) api: SocketAddr,
    /// Its stages, in order of layers.
    pub(crate) stages: Vec<StageView>,
    /// With llama-rpc, the process that drives the servers.
    pub(crate) client: Option<StageView>,
    /// Whether it has a chat template.
    pub(crate) chats: bool,
    /// How its nodes work together.
    pub(crate) engine: Engine,
    /// Why so, where nobody has asked for it.
    pub(crate) remark: Option<String>,
    /// Why it does not answer any more.
    pub(crate) failure: Option<String>,
    /// What it waits for before it is tried again.
    pub(crate) waits: Option<String>,
}

/// A stage and the node that runs it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StageView {
    pub(crate) node: String,
    pub(crate) layers: Option<Layers>,
    /// Of its weights.
    pub(crate) bytes: Option<u64>,
    /// What llama.cpp allocated.
    pub(crate) memory: Option<Memory>,
    /// The stage's process, on its node.
    pub(crate) pid: u32,
}

/// Asks the daemon of this user. `progress` gets what is to be shown meanwhile.
pub(crate) fn ask(request: &Request, progress: impl FnMut(&str)) -> anyhow::Result<Reply> {
    ask_at(&brigade_node::home_dir()?, request, progress)
}

/// Asks the daemon with this state folder.
pub(crate) fn ask_at(
    home: &Path,
    request: &Request,
    mut progress: impl FnMut(&str),
) -> anyhow::Result<Reply> {
    let mut conversation = Conversation::open(home)?;
    conversation
        .say(request)
        .context("cannot reach the daemon")?;
    loop {
        match conversation
            .hear::<Reply>()
            .context("the daemon's answer cannot be read")?
        {
            Some(Reply::Progress(line)) => progress(&line),
            Some(Reply::Failed(reason)) => bail!("{reason}"),
            Some(reply) => return Ok(reply),
            None => bail!("the daemon has ended"),
        }
    }
}
