//! The HTTP API of a process.

#[cfg(unix)]
use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use brigade_api::{ApiKeys, Backend, BoxedStream, Settings};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::output;

/// Where the API listens when nobody says otherwise and the port is free.
const USUAL_API: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8811);

/// How the API is served, as options of every command that serves it.
#[derive(Debug, clap::Args)]
pub(crate) struct ApiArgs {
    /// Address of the OpenAI-compatible API [default: 127.0.0.1:8811, or any free port]
    #[arg(long, value_name = "ADDR")]
    pub(crate) api: Option<SocketAddr>,
    /// Ask every request for one of the keys in this file, which `brigade key` writes
    #[arg(long, value_name = "PATH")]
    api_key_file: Option<PathBuf>,
    #[arg(
        long,
        value_name = "ORIGIN",
        help = "Let web pages of this origin use the API, such as https://chat.example"
    )]
    cors_origin: Vec<String>,
    /// End a request that takes longer than this many seconds
    #[arg(long, default_value_t = 3600, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..))]
    request_timeout: u64,
    /// A file with another chat template than the model's own (Jinja)
    #[arg(long, value_name = "PATH")]
    chat_template: Option<PathBuf>,
}

impl ApiArgs {
    /// Who may use it, and for how long.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let keys = self.api_key_file.as_ref().map(|path| {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the keys in {}", path.display()))?;
            let keys = ApiKeys::parse(&text)
                .with_context(|| format!("cannot use the keys in {}", path.display()))?;
            if keys.is_empty() {
                bail!("{} has no keys; `brigade key` makes one", path.display());
            }
            Ok(keys)
        });
        Ok(Settings {
            keys: keys.transpose()?,
            cors_origins: self.cors_origin.clone(),
            timeout: Some(Duration::from_secs(self.request_timeout)),
            ..Settings::default()
        })
    }

    /// These options as another process of ours is given them.
    #[cfg(unix)]
    pub(crate) fn options(&self) -> Vec<OsString> {
        let mut options: Vec<OsString> = Vec::new();
        let api = self.api.iter().map(|api| ("--api", api.to_string().into()));
        let keys = self
            .api_key_file
            .iter()
            .map(|path| ("--api-key-file", path.into()));
        let origins = self.cors_origin.iter();
        let origins = origins.map(|origin| ("--cors-origin", origin.into()));
        let templates = self.chat_template.iter();
        let templates = templates.map(|path| ("--chat-template", path.into()));
        for (name, value) in api.chain(keys).chain(origins).chain(templates) {
            options.extend([OsString::from(name), value]);
        }
        options.push("--request-timeout".into());
        options.push(self.request_timeout.to_string().into());
        options
    }

    /// The files that were named.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.api_key_file, &self.chat_template];
        files.into_iter().flatten().map(PathBuf::as_path)
    }

    /// The text of the template that was named.
    pub(crate) fn chat_template(&self) -> anyhow::Result<Option<String>> {
        let text = self.chat_template.as_ref().map(|path| {
            std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the chat template {}", path.display()))
        });
        text.transpose()
    }

    /// Takes the address that was asked for, or the usual one, or any where that is taken. Beyond
    /// loopback it takes none without keys.
    pub(crate) fn listen(&self, settings: &Settings) -> anyhow::Result<TcpListener> {
        let Some(address) = self.api else {
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
        if !address.ip().is_loopback() && settings.keys.is_none() {
            bail!(
                "without keys the API listens on loopback only: use 127.0.0.1:{}, or make a key \
                 with `brigade key` and name its file with --api-key-file",
                address.port()
            );
        }
        TcpListener::bind(address).with_context(|| {
            format!("cannot listen at {address}; choose another port with --api, 0 for any")
        })
    }
}

/// The HTTP server on a runtime of its own.
#[derive(Debug)]
pub(crate) struct Server {
    runtime: Runtime,
    stop: watch::Sender<bool>,
    served: [JoinHandle<io::Result<()>>; 2],
}

impl Server {
    /// Serves a backend: to clients at a listener, and to other nodes by the connections that
    /// `inside` brings.
    pub(crate) fn start(
        listener: TcpListener,
        inside: mpsc::UnboundedReceiver<BoxedStream>,
        backend: impl Backend,
        settings: Settings,
    ) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let (stop, stopped) = watch::channel(false);
        let ends = || {
            let mut stopped = stopped.clone();
            async move {
                // A dropped sender means the same as a message.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            }
        };
        let backend = Arc::new(backend);
        let inner = brigade_api::inner_router(Arc::clone(&backend), None, settings.clone());
        let front = brigade_api::router(backend, None, settings);
        let served = [
            runtime.spawn(brigade_api::serve(listener, front, ends())),
            runtime.spawn(brigade_api::serve_inside(inside, inner, ends())),
        ];
        Ok(Self {
            runtime,
            stop,
            served,
        })
    }

    /// What its tasks run on.
    pub(crate) fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Takes no more requests, and gives those in progress a moment to end.
    pub(crate) fn stop(self) {
        let _ = self.stop.send(true);
        for served in self.served {
            match self.runtime.block_on(served) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => output::note(&format!("brigade: the API stopped: {error}")),
                Err(error) => output::note(&format!("brigade: the API stopped: {error}")),
            }
        }
        // A request that is still being tokenized is not waited for.
        self.runtime.shutdown_background();
    }
}
