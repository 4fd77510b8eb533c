//! Serving a router on a socket.

use std::{future::Future, io, pin::pin, time::Duration};

use axum::{
    Router,
    serve::{Listener, ListenerExt},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::mpsc::UnboundedReceiver};

use crate::BoxedStream;

/// How long answers in progress may go on after the shutdown has begun. A backend that shuts
/// down with the server fails its generations, and this is time to tell the clients so.
const GRACE: Duration = Duration::from_secs(2);

/// How long the head of a request may take to come, so that who sends half of one does not hold a
/// connection, and with it a file descriptor, for ever. Connections that are kept without a request
/// end after that time as well.
const HEAD: Duration = Duration::from_secs(30);

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
    mut listener: L,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()>
where
    L: Listener,
{
    // What `axum::serve` does, which knows no limit of time.
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let stream = tokio::select! {
            (stream, _) = listener.accept() => stream,
            () = &mut shutdown => break,
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(grace, graceful.shutdown()).await;
    Ok(())
}
