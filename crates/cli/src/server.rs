//! The OpenAI-compatible API of a process.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, bail};
use brigade_api::{Backend, ChatTemplate};

use crate::output;

/// Where the API listens when nobody says otherwise and the port is free.
const USUAL_API: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8811);

/// Takes the address that was asked for, or the usual one, or any where that is taken.
pub(crate) fn listen(asked: Option<SocketAddr>) -> anyhow::Result<TcpListener> {
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
    if !address.ip().is_loopback() {
        bail!(
            "the API has no keys yet and listens on loopback only: use 127.0.0.1:{}",
            address.port()
        );
    }
    TcpListener::bind(address).with_context(|| {
        format!("cannot listen at {address}; choose another port with --api, 0 for any")
    })
}

/// The HTTP server on a runtime of its own.
#[derive(Debug)]
pub(crate) struct Server {
    runtime: tokio::runtime::Runtime,
    stop: tokio::sync::oneshot::Sender<()>,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Serves a backend, with a template for its conversations.
    pub(crate) fn start(
        listener: TcpListener,
        backend: impl Backend,
        template: Option<ChatTemplate>,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let router = brigade_api::router(Arc::new(backend), template);
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

    /// Takes no more requests, and gives those in progress a moment to end.
    pub(crate) fn stop(self) {
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
