//! Serving a router on a socket.

use std::{future::Future, io, time::Duration};

use axum::{
    Router,
    serve::{Listener, ListenerExt},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc::UnboundedReceiver, oneshot},
};

use crate::BoxedStream;

/// How long answers in progress may go on after the shutdown has begun. A backend that shuts
/// down with the server fails its generations, and this is time to tell the clients so.
const GRACE: Duration = Duration::from_secs(2);

/// Serves until `shutdown` resolves; then takes no more connections, gives answers in progress
/// two seconds, and returns. Needs a tokio runtime with I/O and time.
pub async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_with_grace(listener, router, shutdown, GRACE).await
}

/// The same for connections that come some other way.
pub async fn serve_inside(
    connections: UnboundedReceiver<BoxedStream>,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    finish(Inside(connections), router, shutdown, GRACE).await
}

struct Inside(UnboundedReceiver<BoxedStream>);

impl Listener for Inside {
    type Io = BoxedStream;
    type Addr = ();

    async fn accept(&mut self) -> (BoxedStream, ()) {
        match self.0.recv().await {
            Some(stream) => (stream, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

async fn serve_with_grace(
    listener: std::net::TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?.tap_io(|stream| {
        // A token is a small write; without this the next one waits for its acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
    });
    finish(listener, router, shutdown, grace).await
}

async fn finish<L>(
    listener: L,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let (began, start) = oneshot::channel();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        shutdown.await;
        // Nobody listens if the server has ended by itself.
        let _ = began.send(());
    });
    let out_of_time = async {
        // An error means that the server ended by itself, and then the other branch is ready.
        if start.await.is_ok() {
            tokio::time::sleep(grace).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        result = server.into_future() => result,
        () = out_of_time => Ok(()),
    }
}
