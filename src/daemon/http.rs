//! The small HTTP server for people and machines that watch: `/metrics`, and what [`super::health`] answers.
//!
//! One request a connection, and a time limit for each half of it. Of [`CONNECTIONS_MAX`] the oldest makes room for a new
//! one, so that a client that opens many and does not read locks no other client out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::health::{Answer, Health};

/// A request's head must be there within this time; until then the connection is idle.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// The answer must be taken within this time: a connection that has not ended so long after the latest end of its
/// request's head is cut.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections served at once.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request's head, and its header lines. A body is not read.
const HEAD_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
/// Pause after an error that is not the client's: out of file descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until dropped.
pub(crate) async fn serve(listener: TcpListener, health: Health) {
    let (mut tasks, mut open) = (JoinSet::new(), VecDeque::<AbortHandle>::new());
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        while tasks.try_join_next().is_some() {}
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(tasks.spawn(serve_connection(stream, health.clone())));
    }
}

async fn serve_connection(stream: TcpStream, health: Health) {
    let service = hyper::service::service_fn(move |request| {
        let response = answer(&request, &health);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(READ_TIMEOUT);
    server.keep_alive(false).max_buf_size(HEAD_MAX).max_headers(HEADERS_MAX);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    // A scraper that goes away, or is too slow, is its own business.
    let _ = tokio::time::timeout(READ_TIMEOUT + WRITE_TIMEOUT, connection).await;
}

fn answer(request: &Request<Incoming>, health: &Health) -> Response<Full<Bytes>> {
    let plain = |answer: Answer| match answer {
        Ok(text) => (StatusCode::OK, "text/plain", text),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", text),
    };
    let (status, kind, body) = match request.uri().path() {
        "/metrics" => (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", health.status.metrics_page()),
        "/livez" | "/healthz" => plain(Ok("ok\n".to_owned())),
        "/readyz" => plain(health.ready()),
        "/journalz" => plain(health.journal()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "there is /metrics, /livez, /readyz and /journalz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// Binds the address for [`serve`].
pub(crate) async fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(addr).await
}
