//! Bodies that are read whole before any of their events is sent on.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::header;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::intake::Outcome;
use turnpike_domain::problem::{Code, Problem};

use super::answer;
use super::body::BodyReader;
use super::content::{Encoding, Media};
use crate::IngestState;
use crate::admission::Ticket;
use crate::decode::binary;
use crate::decode::cloudevents::Defaults;
use crate::decode::lines::Lines;
use crate::decode::{Assembler, Form, Piece};

/// Bodies beyond this are decoded on a thread of their own, so that they hold up no other request.
const INLINE_BYTES_MAX: usize = 256 * 1024;

/// What a byte of a body costs in memory: itself, and its copy in a batch.
const COPIES: usize = 2;

/// How a whole body is taken.
pub(crate) struct Whole<'s> {
    pub(crate) state: &'s IngestState,
    pub(crate) tenant: TenantId,
    pub(crate) media: Media,
    pub(crate) encoding: Encoding,
    /// Whether one invalid event refuses all.
    pub(crate) atomic: bool,
}

impl Whole<'_> {
    /// Reads the body, decodes all of it, and only then sends its events on.
    pub(crate) async fn take<D: Defaults + 'static>(
        &self,
        request: Request,
        defaults: D,
    ) -> Result<(Form, Piece, Vec<Outcome>), Problem> {
        let mut ticket = self.state.admission().ticket(self.tenant);
        let bound = self.state.options.body_bytes_max;
        let binary = match self.media {
            Media::Binary => Some(binary::attributes(request.headers())?),
            Media::Json | Media::Lines => None,
        };
        let mut body = read(self.state, request, self.encoding, bound, &mut ticket).await?;
        if let Some(attributes) = binary {
            body = binary::structured(&attributes, &body)?.into();
        }
        let (form, mut piece) = match self.decode(body.clone(), defaults).await? {
            Ok(decoded) => decoded,
            Err(problem) => {
                self.state.bury_body(self.tenant, &problem, &body).await;
                return Err(problem);
            }
        };
        // What was made of the body may be larger than the copies that were counted as it came.
        ticket.cover(body.len() + piece.bytes());
        drop(body);
        if self.atomic && form == Form::Many && !piece.refused.is_empty() {
            // No dead letters: one that passes later would break the promise of all or nothing.
            self.state.count(&[], piece.refused.len());
            return Err(answer::all_refused(piece.len(), &piece.refused));
        }
        if self.atomic {
            Arc::make_mut(&mut piece.batch).keep_all_or_nothing();
        }
        let outcomes = self.state.settle(self.tenant, &mut piece).await?;
        Ok((form, piece, outcomes))
    }

    /// The outer error is a failure of ours; the inner one refuses the body.
    async fn decode<D: Defaults + 'static>(
        &self,
        body: Bytes,
        defaults: D,
    ) -> Result<Result<(Form, Piece), Problem>, Problem> {
        let (state, tenant, media) = (self.state.clone(), self.tenant, self.media);
        let large = body.len() > INLINE_BYTES_MAX;
        let work = move || {
            let may_keep = || state.may_keep(tenant);
            let mut assembler = Assembler::new(state.origin(tenant, &defaults), &may_keep);
            let form = match media {
                Media::Json | Media::Binary => assembler.body(&body)?,
                Media::Lines => {
                    lines(&mut assembler, &body);
                    Form::Many
                }
            };
            Ok((form, assembler.take()))
        };
        if !large {
            return Ok(work());
        }
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Problem::new(Code::Internal, format!("a body could not be decoded: {error}")))
    }
}

impl IngestState {
    /// The body of a request of `tenant` as it was sent, whole: at most [`IngestOptions::body_bytes_max`], and what has
    /// come of it counts as in flight until all has. Whoever takes the events out of it counts it from then on.
    ///
    /// [`IngestOptions::body_bytes_max`]: crate::IngestOptions::body_bytes_max
    pub async fn arrived(&self, tenant: TenantId, request: Request) -> Result<Bytes, Problem> {
        let mut ticket = self.admission().ticket(tenant);
        let bound = self.options.body_bytes_max;
        arrive(self, request, Encoding::Identity, bound, &mut ticket).await
    }
}

/// The whole of a body of at most `bound` bytes, held by `ticket`, within the time that a body may take.
pub(crate) async fn read(
    state: &IngestState,
    request: Request,
    encoding: Encoding,
    bound: usize,
    ticket: &mut Ticket,
) -> Result<Bytes, Problem> {
    let body = arrive(state, request, encoding, bound, ticket).await?;
    state.counters().bytes.increment(body.len() as u64);
    Ok(body)
}

async fn arrive(
    state: &IngestState,
    request: Request,
    encoding: Encoding,
    bound: usize,
    ticket: &mut Ticket,
) -> Result<Bytes, Problem> {
    let total = Duration::from_secs(state.options.body_total_s_max);
    let declared = declared_bytes(&request).filter(|_| encoding == Encoding::Identity);
    if let Some(bytes) = declared {
        check_size(bytes, bound)?;
        // Refuses before anything is read; what is held grows as the bytes come.
        ticket.branch(bytes.saturating_mul(COPIES))?;
    }
    let reader = BodyReader::new(request.into_body(), encoding, state.idle());
    let reading = collect(reader, declared.unwrap_or(0), bound, ticket);
    let Ok(read) = tokio::time::timeout(total, reading).await else {
        let detail = format!("the body took more than {} seconds to arrive", total.as_secs());
        return Err(Problem::new(Code::RequestTimeout, detail));
    };
    read
}

async fn collect(
    mut reader: BodyReader,
    declared: usize,
    bound: usize,
    ticket: &mut Ticket,
) -> Result<Bytes, Problem> {
    let Some(first) = reader.next().await? else {
        return Ok(Bytes::new());
    };
    check_size(first.len(), bound)?;
    ticket.grow(first.len() * COPIES)?;
    let Some(second) = reader.next().await? else {
        return Ok(first);
    };
    let mut bytes = Vec::with_capacity(declared.max(first.len() + second.len()));
    bytes.extend_from_slice(&first);
    drop(first);
    let mut next = Some(second);
    while let Some(chunk) = next {
        check_size(bytes.len() + chunk.len(), bound)?;
        ticket.grow(chunk.len() * COPIES)?;
        bytes.extend_from_slice(&chunk);
        next = reader.next().await?;
    }
    Ok(bytes.into())
}

fn lines(assembler: &mut Assembler<'_>, body: &[u8]) {
    let mut lines = Lines::default();
    let mut rest = body;
    while let Some(line) = lines.next(&mut rest) {
        assembler.line(&line);
    }
    if let Some(line) = lines.last() {
        assembler.line(&line);
    }
}

fn declared_bytes(request: &Request) -> Option<usize> {
    request
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn check_size(bytes: usize, bound: usize) -> Result<(), Problem> {
    if bytes <= bound {
        return Ok(());
    }
    let detail = format!(
        "a body has at most {bound} bytes after decompression; send more events as application/x-ndjson, or in parts"
    );
    Err(Problem::new(Code::TooLarge, detail))
}
