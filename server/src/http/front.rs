//! What stands before all routes: CORS where it is wanted, the gate, and the last touches of an answer.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::cors::CorsLayer;

use super::entry::Gate;
use super::peer::Peer;
use super::routes::Handlers;

/// Answers the requests of a listener.
pub(crate) trait Answers: Clone + Send + Sync + 'static {
    /// The answer to one, of a client at `peer`; none for a call from inside the process.
    fn answer(&self, request: Request, peer: Option<Peer>) -> impl Future<Output = Response> + Send;
}

impl Answers for Router {
    async fn answer(&self, request: Request, _: Option<Peer>) -> Response {
        Handlers(self.clone()).run(request).await
    }
}

/// The API as it is served. It is one service and no stack of layers around each route, for every one of those costs
/// allocations with each request.
#[derive(Clone)]
pub(crate) struct Front(Arc<Inner>);

struct Inner {
    gate: Gate,
    handlers: Handlers,
    cors: Option<CorsLayer>,
}

impl Front {
    pub(crate) fn new(gate: Gate, handlers: Router, cors: Option<CorsLayer>) -> Self {
        let handlers = Handlers(handlers);
        Self(Arc::new(Inner { gate, handlers, cors }))
    }

    async fn pass(&self, request: Request, peer: Option<Peer>) -> Response {
        let method = request.method().clone();
        whole(self.0.gate.entry(request, peer, &self.0.handlers).await, &method)
    }

    async fn pass_with_cors(&self, cors: &CorsLayer, request: Request, peer: Option<Peer>) -> Response {
        let passed = service_fn(async |request| Ok::<_, Infallible>(self.pass(request, peer).await));
        let answered = cors.layer(passed).oneshot(request).await;
        answered.unwrap_or_else(|never| match never {})
    }
}

impl Answers for Front {
    async fn answer(&self, request: Request, peer: Option<Peer>) -> Response {
        // The layer takes every `OPTIONS` for a question about another call. One that asks nothing of the kind is a call itself.
        let is_call = request.method() == Method::OPTIONS
            && !request
                .headers()
                .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        match self.0.cors.as_ref().filter(|_| !is_call) {
            None => self.pass(request, peer).await,
            // In a box, so that the future of the others need not have room for it.
            Some(cors) => Box::pin(self.pass_with_cors(cors, request, peer)).await,
        }
    }
}

/// `response` with its length, and without its body where `HEAD` asked for it.
fn whole(mut response: Response, method: &Method) -> Response {
    let length = response.body().size_hint().exact();
    if let Some(length) = length.filter(|_| !response.headers().contains_key(header::CONTENT_LENGTH)) {
        let length = HeaderValue::from(length);
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    if *method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response
}
