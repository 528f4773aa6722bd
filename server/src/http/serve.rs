//! The listener: our own accept loop, so that limits hold on every connection.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Randomness;

use super::front::Answers;
use super::pace::Pace;
use super::peer::{Connections, Counted, Peer};
use super::unreadable::{Refusing, refusal};
use crate::config::HttpConfig;

/// Wait after a failure to accept, such as too many open files, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `answers` until `stop`; then takes no more connections, lets requests in flight finish for `drain_s`, and returns
/// how many connections were cut because they had not.
pub(crate) async fn serve(
    listener: TcpListener,
    answers: impl Answers,
    config: HttpConfig,
    randomness: Arc<dyn Randomness>,
    stop: CancellationToken,
) -> usize {
    let permits = Arc::new(Semaphore::new(config.connections_max));
    let connections = Arc::new(Connections::default());
    let graceful = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(u64::from(config.header_read_timeout_s)))
        .max_buf_size(config.header_bytes_max)
        .max_header_size(config.header_bytes_max)
        .max_headers(config.headers_max)
        .keep_alive(true);
    let pace = Pace {
        idle: Duration::from_secs(u64::from(config.answer_idle_timeout_s)),
        rate_min: config.body_rate_min,
    };
    while let Some((stream, peer, permit)) = accept(&listener, &permits, &stop).await {
        let Ok(counted) = count(&connections, peer, &config) else {
            refuse(stream, &too_many(randomness.as_ref()));
            continue;
        };
        let service = hyper::service::service_fn({
            let answers = answers.clone();
            move |request: hyper::Request<Incoming>| {
                let answers = answers.clone();
                async move {
                    let request: Request = request.map(Body::new);
                    Ok::<_, Infallible>(answers.answer(request, Some(Peer(peer))).await)
                }
            }
        });
        let stream = Refusing::new(stream, pace, Arc::clone(&randomness));
        let connection = graceful.watch(builder.serve_connection(stream, service));
        tokio::spawn(async move {
            let _held = (permit, counted);
            metrics::gauge!("turnpike_http_connections").increment(1);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            metrics::gauge!("turnpike_http_connections").decrement(1);
        });
    }
    drop(listener);
    let drained = tokio::time::timeout(
        Duration::from_secs(u64::from(config.drain_s)),
        graceful.shutdown(),
    )
    .await;
    if drained.is_ok() {
        0
    } else {
        config.connections_max - permits.available_permits()
    }
}

/// The answer to a connection beyond its address's bound.
fn too_many(randomness: &dyn Randomness) -> Vec<u8> {
    let detail = "too many connections from this address (http.connections_per_address_max): use fewer, and keep them open";
    refusal(&Problem::new(Code::RateLimited, detail), &randomness.new_id())
}

/// Beyond its address's bound on connections.
struct TooMany;

/// Counts a connection against its address's bound; proxies that are trusted have none.
fn count(
    connections: &Arc<Connections>,
    peer: SocketAddr,
    config: &HttpConfig,
) -> Result<Option<Counted>, TooMany> {
    if config.trusted_proxies.contain(peer.ip()) {
        return Ok(None);
    }
    let counted = connections.take(peer.ip(), config.connections_per_address_max);
    counted.map(Some).ok_or(TooMany)
}

/// Says why, as far as that goes without waiting, and closes.
fn refuse(stream: TcpStream, refusal: &[u8]) {
    metrics::counter!("turnpike_http_connections_refused_total").increment(1);
    let Ok(mut stream) = stream.into_std() else { return };
    let mut request = [0; 4_096];
    // What was sent already is read, for else closing resets the connection and the answer may be lost with it. The
    // socket does not block, and a client that is gone needs no answer.
    let _ = stream.read(&mut request);
    let _ = stream.write_all(refusal);
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let next = async {
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    // Answers are small: waiting to fill a packet only adds delay.
                    let _ = stream.set_nodelay(true);
                    return Some((stream, peer, permit));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        accepted = next => accepted,
        () = stop.cancelled() => None,
    }
}
