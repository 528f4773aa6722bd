//! Bodies that are read whole before any of their events is sent on.

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
use crate::decode::cloudevents::Defaults;
use crate::decode::lines::Lines;
use crate::decode::{Assembler, Form, Piece};

/// Bodies beyond this are decoded on a thread of their own, so that they hold up no other request.
const INLINE_BYTES_MAX: usize = 256 * 1024;

/// What a byte of a body costs in memory: itself, and its copy in the log's encoding.
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
    pub(crate) async fn take(
        &self,
        request: Request,
        defaults: fn() -> Box<dyn Defaults>,
    ) -> Result<(Form, Piece, Vec<Outcome>), Problem> {
        let mut ticket = self.state.admission().ticket(self.tenant);
        let total = Duration::from_secs(self.state.options.body_total_s_max);
        let body = if let Ok(read) = tokio::time::timeout(total, self.read(request, &mut ticket)).await {
            read?
        } else {
            let detail = format!("the body took more than {} seconds to arrive", total.as_secs());
            return Err(Problem::new(Code::RequestTimeout, detail));
        };
        let (form, mut piece) = match self.decode(body.clone(), defaults).await? {
            Ok(decoded) => decoded,
            Err(problem) => {
                if !self.atomic {
                    self.state.bury_body(self.tenant, &problem, &body).await;
                }
                return Err(problem);
            }
        };
        drop(body);
        if self.atomic && form == Form::Many && !piece.refused.is_empty() {
            return Err(answer::all_refused(piece.len(), &piece.refused));
        }
        let outcomes = self.state.settle(self.tenant, &mut piece).await?;
        Ok((form, piece, outcomes))
    }

    async fn read(&self, request: Request, ticket: &mut Ticket) -> Result<Bytes, Problem> {
        let bound = self.state.options.body_bytes_max;
        let declared = declared_bytes(&request).filter(|_| self.encoding == Encoding::Identity);
        if let Some(bytes) = declared {
            check_size(bytes, bound)?;
            // Refuses before anything is read; what is held grows as the bytes come.
            ticket.branch(bytes.saturating_mul(COPIES))?;
        }
        let mut reader = BodyReader::new(request.into_body(), self.encoding, self.state.idle());
        let Some(first) = reader.next().await? else {
            return Ok(Bytes::new());
        };
        ticket.grow(first.len() * COPIES)?;
        check_size(first.len(), bound)?;
        let Some(second) = reader.next().await? else {
            self.state.counters().bytes.increment(first.len() as u64);
            return Ok(first);
        };
        let mut bytes = Vec::with_capacity(declared.unwrap_or(first.len() + second.len()));
        bytes.extend_from_slice(&first);
        drop(first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            check_size(bytes.len() + chunk.len(), bound)?;
            ticket.grow(chunk.len() * COPIES)?;
            bytes.extend_from_slice(&chunk);
            next = reader.next().await?;
        }
        self.state.counters().bytes.increment(bytes.len() as u64);
        Ok(bytes.into())
    }

    /// The outer error is a failure of ours; the inner one refuses the body.
    async fn decode(
        &self,
        body: Bytes,
        defaults: fn() -> Box<dyn Defaults>,
    ) -> Result<Result<(Form, Piece), Problem>, Problem> {
        let (state, tenant, media, atomic) = (self.state.clone(), self.tenant, self.media, self.atomic);
        let large = body.len() > INLINE_BYTES_MAX;
        let work = move || {
            let defaults = defaults();
            let may_keep = || !atomic && state.may_keep(tenant);
            let mut assembler = Assembler::new(state.origin(tenant, &*defaults), &may_keep);
            let form = match media {
                Media::Json => assembler.body(&body)?,
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
