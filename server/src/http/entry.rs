use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, Version, header};
use axum::response::{IntoResponse as _, Response};
use tracing::Instrument as _;
use turnpike_domain::catalog::{ApiKey, Tenant};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{ApiKeys, KeyRefusal, SecurityEvent};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{Clock, Randomness};
use turnpike_http::{Caller, Failure, Rates, RequestId, without_body};

use super::auth::{KeyFault, NoteSecurity, authenticate};
use super::body::{Leftover, Linger, paced};
use super::call_limits::{CallLimits, Standing};
use super::finish::{finish_headers, is_failure, told};
use super::pace::Pace;
use super::peer::{Peer, client_address, one_client};
use super::repeat::Repeats;
use super::routes::{Handlers, Route, Routes};
use crate::config::Networks;

const SECOND_US: u64 = 1_000_000;

/// The tenant that is made at the first start; security events that belong to none are in its audit log.
const ADMINISTRATION: TenantId = TenantId::DEFAULT;

/// What every request passes: its id and span, the key, limits of calls, and on the way out problems and headers.
pub(crate) struct Gate {
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Ids of requests.
    pub(crate) randomness: Arc<dyn Randomness>,
    /// The API keys.
    pub(crate) keys: Arc<dyn ApiKeys>,
    /// The tenants, for their state and limits.
    pub(crate) directory: Arc<dyn Directory>,
    /// Where security events are kept.
    pub(crate) security: NoteSecurity,
    /// Calls without a valid key that are answered per minute and client.
    pub(crate) failed_auth_per_minute: u32,
    /// Limits of calls.
    pub(crate) calls: CallLimits,
    /// Whose X-Forwarded-For is believed.
    pub(crate) trusted_proxies: Networks,
    /// How slow a body may be.
    pub(crate) pace: Pace,
    /// Which routes there are.
    pub(crate) routes: Routes,
    /// The answers to repeats.
    pub(crate) repeats: Arc<Repeats>,
    pub(crate) failures: Rates<Option<IpAddr>>,
}

/// A valid key, and its tenant, which is not suspended.
type Known = (Arc<ApiKey>, Arc<Tenant>);

/// Whose key it is, and its id.
type Who = (TenantId, Arc<str>);

/// What becomes of the body of a request.
enum HasBody {
    /// Its operation takes it, or need not look.
    Taken,
    /// Its operation has none.
    Refused,
}

/// What is known of a request before its handler runs.
struct Arrival {
    id: RequestId,
    method: Method,
    route: Arc<Route>,
    client: Option<IpAddr>,
    leftover: Leftover,
}

impl Arrival {
    fn route(&self) -> &str {
        &self.route.path
    }

    /// An error unless a request of HTTP/1.1 names its host once. Source: RFC 9112, section 3.2. A call from inside the
    /// process, which no client sent, names none.
    fn check_host(&self, request: &Request) -> Result<(), Problem> {
        if self.client.is_none() || request.version() != Version::HTTP_11 {
            return Ok(());
        }
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let named = |host: &HeaderValue| host.to_str().is_ok_and(|host| host.parse::<Authority>().is_ok());
        match (hosts.next(), hosts.next()) {
            (Some(host), None) if named(host) => Ok(()),
            _ => Err(Problem::new(
                Code::InvalidRequest,
                "send one valid Host header: HTTP/1.1 needs it",
            )),
        }
    }

    /// Whether a request has a body that its operation takes; an error where it has parameters that it does not take.
    /// Whoever watches the public paths may add what it likes.
    fn as_documented(&self, public: bool, request: &Request) -> Result<HasBody, Problem> {
        let takes = self.route.operations.get(&self.method);
        let Some(takes) = takes.filter(|_| !public) else {
            return Ok(HasBody::Taken);
        };
        takes.check_query(request.uri().query())?;
        let safe = matches!(self.method, Method::GET | Method::HEAD);
        Ok(if takes.body || safe {
            HasBody::Taken
        } else {
            HasBody::Refused
        })
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned());
    tracing::error!(panic = text.unwrap_or_default(), "a handler panicked");
    metrics::counter!("turnpike_http_panics_total").increment(1);
    Failure(Problem::new(
        Code::Internal,
        "the server failed; the request id finds it in its log",
    ))
    .into_response()
}

fn report(arrival: &Arrival, response: &Response, took_us: u64) {
    let status = response.status();
    arrival
        .route
        .count(&arrival.method, status.as_u16(), Duration::from_micros(took_us));
    if status.is_server_error() {
        tracing::warn!(target: "turnpike::access", status = status.as_u16(), took_us, "answered with a failure");
    } else {
        tracing::debug!(target: "turnpike::access", status = status.as_u16(), took_us, "answered");
    }
}

/// The client's own id where it sent a plain one, else a new one.
pub(super) fn request_id(request: &Request, randomness: &dyn Randomness) -> RequestId {
    let plain = |text: &&str| {
        (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    let sent = request
        .headers()
        .get("x-request-id")
        .and_then(|value| value.to_str().ok())
        .filter(plain);
    RequestId(sent.map_or_else(|| randomness.new_id().into(), Into::into))
}

impl Gate {
    /// Answers every request, of a route or of none.
    pub(crate) async fn entry(&self, request: Request, peer: Option<Peer>, handlers: &Handlers) -> Response {
        let arrival = Arrival {
            id: request_id(&request, self.randomness.as_ref()),
            method: request.method().clone(),
            route: self.routes.of_path(request.uri().path()),
            client: peer.map(|peer| client_address(peer.0.ip(), request.headers(), &self.trusted_proxies)),
            leftover: Leftover::default(),
        };
        let span = tracing::info_span!(
            "request",
            request_id = &*arrival.id.0,
            method = arrival.method.as_str(),
            route = arrival.route(),
            status = tracing::field::Empty,
            traceparent = request
                .headers()
                .get("traceparent")
                .and_then(|value| value.to_str().ok()),
        );
        let started_us = self.clock.monotonic_us();
        let response = {
            // Polled where it stands: every layer of futures around it would copy it once more.
            let mut handled = pin!(self.handle(&arrival, request, handlers));
            let passed = poll_fn(|cx| {
                let _within = span.enter();
                let polled = catch_unwind(AssertUnwindSafe(|| handled.as_mut().poll(cx)));
                polled.unwrap_or_else(|panic| Poll::Ready(panicked(panic.as_ref())))
            });
            passed.await
        };
        let is_last = arrival.leftover.is_there();
        let mut response = if is_failure(&response) {
            // In a box, as failures are seldom: the future of the others has no room for it.
            let told = Box::pin(told(response, &arrival.id, &arrival.method));
            told.instrument(span.clone()).await
        } else {
            response
        };
        span.in_scope(|| {
            finish_headers(&mut response, &arrival.id, is_last);
            span.record("status", response.status().as_u16());
            report(&arrival, &response, self.clock.monotonic_us() - started_us);
        });
        response
    }

    async fn handle(&self, arrival: &Arrival, request: Request, handlers: &Handlers) -> Response {
        let mut standing = Standing::default();
        let (request, who) = match self.admitted(arrival, request, &mut standing) {
            Ok(admitted) => admitted,
            Err(problem) => {
                let mut refused = Failure(problem).into_response();
                standing.set_headers(refused.headers_mut());
                return refused;
            }
        };
        let mut response = match arrival.as_documented(who.is_none(), &request) {
            // In a box, as all that is seldom: the future of the others has no room for it.
            Ok(HasBody::Refused) => Box::pin(self.run_without_body(arrival, request, handlers)).await,
            Ok(HasBody::Taken) if Repeats::concern(arrival.route(), &request) => {
                Box::pin(self.repeats.pass(arrival.route(), request, handlers.clone())).await
            }
            Ok(HasBody::Taken) => handlers.clone().run(request).await,
            Err(problem) => Failure(problem).into_response(),
        };
        standing.set_headers(response.headers_mut());
        let lacks_scope = response
            .extensions()
            .get::<Failure>()
            .is_some_and(|failure| failure.0.code == Code::Forbidden);
        if let Some((tenant, key)) = who.filter(|_| lacks_scope) {
            self.note(arrival, Some((tenant, &key)), "security.missing_scope");
        }
        response
    }

    /// The request with its caller, and whose key it is; none on a public path.
    fn admitted(
        &self,
        arrival: &Arrival,
        request: Request,
        standing: &mut Standing,
    ) -> Result<(Request, Option<Who>), Problem> {
        let known = self.known(arrival, &request);
        let linger = match &known {
            _ if request.headers().contains_key(header::EXPECT) => Linger::Asked,
            Ok(Some(_)) => Linger::Known,
            Ok(None) | Err(_) => Linger::Stranger,
        };
        // Before anything is refused: a refusal must not break the connection for the calls after it.
        let mut request = request.map(|body| paced(body, self.pace, linger, arrival.leftover.clone()));
        let Some(known) = known? else {
            return Ok((request, None));
        };
        let caller = self.admit(arrival, known, standing)?;
        let who = (caller.tenant, Arc::clone(&caller.key_id));
        request.extensions_mut().insert(caller);
        Ok((request, Some(who)))
    }

    /// Answers a request of an operation that takes no body, unless it has one.
    async fn run_without_body(&self, arrival: &Arrival, request: Request, handlers: &Handlers) -> Response {
        match without_body(request).await {
            Ok(request) if Repeats::concern(arrival.route(), &request) => {
                self.repeats
                    .pass(arrival.route(), request, handlers.clone())
                    .await
            }
            Ok(request) => handlers.clone().run(request).await,
            Err(failure) => failure.into_response(),
        }
    }

    /// Whose key it is, none on a public path; a problem where there is no valid one, or its tenant is suspended.
    fn known(&self, arrival: &Arrival, request: &Request) -> Result<Option<Known>, Problem> {
        arrival.check_host(request)?;
        if arrival.route.is_public {
            return Ok(None);
        }
        let key = authenticate(self.keys.as_ref(), request.headers())
            .map_err(|fault| self.refuse(arrival, fault))?;
        let Some(tenant) = self.directory.tenant(key.tenant) else {
            return Err(self.refuse(arrival, KeyFault::Refused(KeyRefusal::Unknown)));
        };
        if tenant.suspended {
            self.note(arrival, Some((key.tenant, &key.id)), "security.suspended");
            let detail = "this tenant is suspended; ask the operator of this server";
            return Err(Problem::new(Code::TenantSuspended, detail));
        }
        Ok(Some((key, tenant)))
    }

    /// Who calls, unless there are too many calls or the key lacks the scope.
    fn admit(
        &self,
        arrival: &Arrival,
        (key, tenant): Known,
        standing: &mut Standing,
    ) -> Result<Caller, Problem> {
        self.calls
            .take((&key, &tenant), self.clock.monotonic_us(), standing)?;
        if let Err(problem) = arrival.route.scopes.require(&arrival.method, &key.scopes) {
            self.note(arrival, Some((key.tenant, &key.id)), "security.missing_scope");
            return Err(problem);
        }
        Ok(Caller {
            tenant: key.tenant,
            key_id: key.id.as_str().into(),
            scopes: Arc::new(key.scopes.clone()),
            request_id: arrival.id.clone(),
        })
    }

    fn refuse(&self, arrival: &Arrival, fault: KeyFault) -> Problem {
        metrics::counter!("turnpike_auth_failures_total").increment(1);
        let limit = self.failed_auth_per_minute.max(1);
        let taken = self.failures.take(
            &arrival.client.map(one_client),
            limit,
            60 * SECOND_US,
            self.clock.monotonic_us(),
        );
        if let Err(wait_s) = taken {
            let detail = "too many calls without a valid API key from this address";
            return Problem {
                retry_after_s: Some(wait_s),
                ..Problem::new(Code::RateLimited, detail)
            };
        }
        if let Some(action) = fault.action() {
            self.note(arrival, None, action);
        }
        fault.problem()
    }

    /// For the audit log, and for whoever watches the log lines.
    fn note(&self, arrival: &Arrival, key: Option<(TenantId, &str)>, action: &'static str) {
        let (tenant, actor) = key.unwrap_or((ADMINISTRATION, "-"));
        let object = format!("{} {}", arrival.method, arrival.route());
        tracing::info!(
            action,
            actor,
            object,
            client = arrival.client.map(tracing::field::display),
            "refused for security"
        );
        (self.security)(SecurityEvent {
            tenant,
            action,
            actor: actor.to_owned(),
            object,
            client: arrival.client,
        });
    }
}
