//! Streams of lines of any length, in pieces: a piece is on its way to the log while the next ones are read.

use std::collections::VecDeque;

use axum::body::Body;
use tokio::task::JoinHandle;
use turnpike_domain::identity::TenantId;
use turnpike_domain::limits::STREAM_PIECES_MAX;
use turnpike_domain::problem::{Code, Problem};

use super::answer::IngestAnswer;
use super::body::BodyReader;
use super::content::Encoding;
use crate::IngestState;
use crate::admission::Ticket;
use crate::decode::cloudevents::NoDefaults;
use crate::decode::lines::Lines;
use crate::decode::{Assembler, Piece};

/// Takes the events of `body`, one a line, each for itself.
pub(crate) async fn take(
    state: &IngestState,
    tenant: TenantId,
    body: Body,
    encoding: Encoding,
) -> Result<IngestAnswer, Problem> {
    let mut flow = Flow {
        state,
        tenant,
        ticket: state.admission().ticket(tenant),
        held: 0,
        under_way: VecDeque::new(),
        answer: IngestAnswer::default(),
    };
    let ended = flow.run(BodyReader::new(body, encoding, state.idle())).await;
    let settled = flow.settle_all().await;
    match ended.and(settled) {
        Ok(()) => Ok(flow.answer),
        Err(problem) => Err(flow.answer.interrupted(problem)),
    }
}

struct Flow<'s> {
    state: &'s IngestState,
    tenant: TenantId,
    ticket: Ticket,
    /// Bytes that `ticket` holds.
    held: usize,
    /// Pieces on their way, the oldest first.
    under_way: VecDeque<JoinHandle<Result<IngestAnswer, Problem>>>,
    /// What became of the pieces that have arrived.
    answer: IngestAnswer,
}

impl Flow<'_> {
    async fn run(&mut self, mut reader: BodyReader) -> Result<(), Problem> {
        let (state, tenant) = (self.state, self.tenant);
        let may_keep = || state.may_keep(tenant);
        let mut assembler = Assembler::new(state.origin(tenant, &NoDefaults), &may_keep);
        let mut lines = Lines::default();
        while let Some(chunk) = reader.next().await? {
            state.counters().bytes.increment(chunk.len() as u64);
            self.hold(chunk.len() + lines.held() + assembler.bytes()).await?;
            assembler.expect(chunk.len());
            let mut rest = &chunk[..];
            while let Some(line) = lines.next(&mut rest) {
                assembler.line(&line);
                if assembler.is_full() {
                    self.send(assembler.take()).await?;
                    // A chunk may be a whole body, which never waits.
                    tokio::task::yield_now().await;
                }
            }
        }
        if let Some(line) = lines.last() {
            assembler.line(&line);
        }
        if assembler.len() > 0 {
            let piece = assembler.take();
            self.settle_all().await?;
            let last = settle(self.state, self.tenant, piece).await?;
            self.answer.join(last);
        }
        Ok(())
    }

    /// Makes sure that the stream's own buffers are admitted.
    async fn hold(&mut self, bytes: usize) -> Result<(), Problem> {
        while bytes > self.held {
            match self.ticket.grow(bytes - self.held) {
                Ok(()) => self.held = bytes,
                Err(problem) => self.wait_or(problem).await?,
            }
        }
        Ok(())
    }

    async fn send(&mut self, piece: Piece) -> Result<(), Problem> {
        while self.under_way.len() >= STREAM_PIECES_MAX {
            self.settle_oldest().await?;
        }
        let ticket = loop {
            match self.ticket.branch(piece.bytes()) {
                Ok(ticket) => break ticket,
                Err(problem) => self.wait_or(problem).await?,
            }
        };
        let (state, tenant) = (self.state.clone(), self.tenant);
        self.under_way.push_back(tokio::spawn(async move {
            let settled = settle(&state, tenant, piece).await;
            drop(ticket);
            settled
        }));
        Ok(())
    }

    /// Waits for the oldest piece to make room, or gives `problem` back when none is on its way.
    async fn wait_or(&mut self, problem: Problem) -> Result<(), Problem> {
        if self.under_way.is_empty() {
            return Err(problem);
        }
        self.settle_oldest().await
    }

    async fn settle_oldest(&mut self) -> Result<(), Problem> {
        let Some(oldest) = self.under_way.pop_front() else {
            return Ok(());
        };
        let settled = oldest.await.map_err(|error| {
            Problem::new(Code::Internal, format!("a piece of the stream failed: {error}"))
        })??;
        self.answer.join(settled);
        Ok(())
    }

    /// Waits for every piece, also behind one that failed, so that the counts are true.
    async fn settle_all(&mut self) -> Result<(), Problem> {
        let mut result = Ok(());
        while !self.under_way.is_empty() {
            result = result.and(self.settle_oldest().await);
        }
        result
    }
}

async fn settle(state: &IngestState, tenant: TenantId, mut piece: Piece) -> Result<IngestAnswer, Problem> {
    let outcomes = state.settle(tenant, &mut piece).await?;
    Ok(IngestAnswer::of(&piece, &outcomes))
}
