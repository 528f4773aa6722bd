use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use metrics::{Counter, Histogram};
use parking_lot::RwLock;
use tower::Service as _;
use utoipa::openapi::{OpenApi, PathItem};

use super::operations::Operations;
use super::scopes::ScopeTable;

/// Paths that need no key. Compared with the route that matched, never with the text of the path, so that no spelling of a
/// path leads around the key.
const PUBLIC: &[&str] = &[
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/docs/errors",
    "/docs/errors/{code}",
];

/// The routes, by path, so that the gate knows which one a request asks for before it is routed.
pub(crate) struct Routes {
    paths: matchit::Router<Arc<Route>>,
    unmatched: Arc<Route>,
}

/// What is known of a route before any request of it.
pub(crate) struct Route {
    /// As the document of the API has it; `unmatched` for what is none.
    pub(crate) path: String,
    /// Whether it needs no key.
    pub(crate) is_public: bool,
    /// What each of its operations needs.
    pub(crate) scopes: ScopeTable,
    /// What each of its operations takes.
    pub(crate) operations: Operations,
    /// Its counts by method and status, each looked up once.
    counts: RwLock<Vec<Counts>>,
}

struct Counts {
    method: &'static str,
    status: u16,
    requests: Counter,
    seconds: Histogram,
}

impl Routes {
    /// Those of the document, and the public ones. One that is missing here needs a key and is answered as the router answers.
    pub(crate) fn of(document: &OpenApi) -> Self {
        let mut paths = matchit::Router::new();
        let documented = document
            .paths
            .paths
            .iter()
            .map(|(path, item)| Route::new(path, item));
        let public = PUBLIC.iter().map(|path| Route::new(path, &PathItem::default()));
        for route in documented.chain(public) {
            // One that is there already is the same.
            let _ = paths.insert(route.path.clone(), route);
        }
        Self {
            paths,
            unmatched: Route::new("unmatched", &PathItem::default()),
        }
    }

    /// The route of a path as it was sent.
    pub(crate) fn of_path(&self, path: &str) -> Arc<Route> {
        let found = self.paths.at(path);
        Arc::clone(found.as_ref().map_or(&self.unmatched, |found| found.value))
    }
}

impl Route {
    fn new(path: &str, item: &PathItem) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            is_public: PUBLIC.contains(&path),
            scopes: ScopeTable::of(item),
            operations: Operations::of(item),
            counts: RwLock::default(),
        })
    }

    /// Counts a request that was answered with `status` after `took`.
    pub(crate) fn count(&self, method: &Method, status: u16, took: Duration) {
        let method = named(method);
        let of_these = |counts: &&Counts| counts.method == method && counts.status == status;
        let known = self.counts.read();
        if let Some(counts) = known.iter().find(of_these) {
            counts.add(took);
            return;
        }
        drop(known);
        let counts = Counts::new(method, &self.path, status);
        counts.add(took);
        let mut known = self.counts.write();
        if known.iter().find(of_these).is_none() {
            known.push(counts);
        }
    }
}

impl Counts {
    fn new(method: &'static str, route: &str, status: u16) -> Self {
        let labels = [
            ("method", method.to_owned()),
            ("route", route.to_owned()),
            ("status", status.to_string()),
        ];
        Self {
            method,
            status,
            requests: metrics::counter!("turnpike_http_requests_total", &labels),
            seconds: metrics::histogram!("turnpike_http_request_duration_seconds", &labels[..2]),
        }
    }

    fn add(&self, took: Duration) {
        self.requests.increment(1);
        self.seconds.record(took);
    }
}

/// A method that is no standard one would let a client make series without end.
fn named(method: &Method) -> &'static str {
    let known = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    let found = known.into_iter().find(|name| *name == method.as_str());
    found.unwrap_or("other")
}

/// The handlers behind the gate.
#[derive(Clone)]
pub(crate) struct Handlers(pub(crate) Router);

impl Handlers {
    /// Answers a request. What `HEAD` asks for is answered as to `GET`; the gate leaves the body out.
    pub(crate) fn run(mut self, mut request: Request) -> impl Future<Output = Response> + Send {
        if *request.method() == Method::HEAD {
            *request.method_mut() = Method::GET;
        }
        // Called at once, so that the future has no room for the request beside the router's own.
        let answered = self.0.call(request);
        async move { answered.await.unwrap_or_else(|never| match never {}) }
    }
}
