//! Over a real socket: what only a connection can show.

use std::{
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};

use axum::Router;
use brigade_api::serve;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::fake::{Fake, held, send_text};

fn start(
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> (SocketAddr, JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(serve(listener, router, shutdown)))
}

async fn send_chat(address: SocketAddr, stream: &str) -> TcpStream {
    let body = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}],"stream":{stream}}}"#);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    connection
}

async fn read_until(connection: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(wanted) {
        let length = connection.read(&mut buffer).await.unwrap();
        assert!(length > 0, "closed after: {text}");
        text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    text
}

/// Half of a request's head holds a connection for a while; an answer that takes long is left alone.
#[tokio::test(start_paused = true)]
async fn an_unfinished_head_is_given_up_and_a_slow_answer_is_not() {
    let (fake, mut generations) = held();
    let (address, _server) = start(fake.router(), pending());
    let mut streaming = send_chat(address, "true").await;
    read_until(&mut streaming, "word").await;
    let generation = generations.recv().await.unwrap();

    let begun = Instant::now();
    let mut half = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n";
    half.write_all(head.as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    half.read_to_end(&mut rest).await.unwrap();
    let taken = begun.elapsed().as_secs();
    assert!((30..60).contains(&taken), "{taken} s");
    sleep(Duration::from_secs(300)).await;
    assert!(!generation.is_closed());
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_generation() {
    let (fake, mut generations) = held();
    let (address, _server) = start(fake.router(), pending());

    let mut streaming = send_chat(address, "true").await;
    read_until(&mut streaming, "word").await;
    let generation = generations.recv().await.unwrap();
    assert!(!generation.is_closed());
    drop(streaming);
    generation.closed().await;

    let waiting = send_chat(address, "false").await;
    let generation = generations.recv().await.unwrap();
    assert!(!generation.is_closed());
    drop(waiting);
    generation.closed().await;
}

#[tokio::test]
async fn text_is_sent_as_it_comes() {
    let (fake, mut generations) = held();
    let (address, _server) = start(fake.router(), pending());
    let mut connection = send_chat(address, "true").await;
    let head = read_until(&mut connection, "word").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let generation = generations.recv().await.unwrap();
    for (text, tokens) in [("alpha", 2), ("beta", 3)] {
        send_text(&generation, text, tokens);
        read_until(&mut connection, text).await;
    }
    drop(generation);
    let end = read_until(&mut connection, "\r\n0\r\n\r\n").await;
    assert!(end.contains(r#"data: {"error":"#), "{end}");
    assert!(!end.contains("[DONE]"), "{end}");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_answered() {
    let (address, _server) = start(Fake::hello().router(), pending());
    let length = 16 * 1024 * 1024;
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    );
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&vec![b' '; length]).await.unwrap();
    let reply = read_until(&mut connection, "request_too_large").await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_waits_for_answers() {
    let (fake, mut generations) = held();
    let (stop, stopped) = oneshot::channel::<()>();
    let (address, server) = start(fake.router(), async move { stopped.await.unwrap() });
    let mut connection = send_chat(address, "true").await;
    read_until(&mut connection, "word").await;
    let generation = generations.recv().await.unwrap();

    stop.send(()).unwrap();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    drop(generation);
    read_until(&mut connection, r#"data: {"error":"#).await;
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_without_end_does_not_hold_up_shutdown() {
    let (fake, mut generations) = held();
    let (stop, stopped) = oneshot::channel::<()>();
    let (address, server) = start(fake.router(), async move { stopped.await.unwrap() });
    let mut connection = send_chat(address, "true").await;
    read_until(&mut connection, "word").await;
    let generation = generations.recv().await.unwrap();
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert!(!generation.is_closed());
}
