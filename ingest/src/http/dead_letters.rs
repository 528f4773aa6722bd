//! `GET /v1/events/dead-letters` and `POST /v1/events/dead-letters/replay`.

use std::collections::BTreeSet;
use std::fmt;

use axum::Json;
use axum::extract::State;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::limits::{DEAD_LETTERS_REPLAYED_MAX, PAGE_ROWS_MAX};
use turnpike_domain::port::history::DeadLetter;
use turnpike_domain::port::intake::Outcome;
use turnpike_domain::problem::Problem;
use turnpike_domain::record::Position;
use turnpike_domain::time::Timestamp;
use turnpike_http::{Caller, Cursor, MaybeJson, Page, PageQuery, ProblemBody, Reply, Whole};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type};

use super::view::DeadLetterBody;
use crate::IngestState;
use crate::decode::Assembler;
use crate::decode::cloudevents::NoDefaults;
use crate::decode::lines::Line;

/// Letters that are marked as dealt with at the same time.
const RESOLVED_TOGETHER: usize = 64;

/// The list that the cursors of replays belong to: they go on with the replay.
const REPLAY: &str = "/v1/events/dead-letters/replay";

/// List dead letters.
///
/// What could not be counted and has not been dealt with, the newest first: events that were refused, and events that
/// a meter could not read. Refused events are kept up to a rate, and of one body the first 1,000; the others are in the metric
/// `turnpike_ingest_dead_letters_total{result="over_rate"}`.
#[utoipa::path(
    get, path = "/v1/events/dead-letters", tag = "Events", params(PageQuery),
    responses(
        (status = 200, body = Page<DeadLetterBody>, description = "A page of dead letters"),
        (status = 422, body = ProblemBody, description = "A parameter is invalid"),
        (status = 503, body = ProblemBody, description = "Too many readings are under way: try again later"),
    ),
    security(("api_key" = ["read"])),
)]
pub(crate) async fn list(
    State(state): State<IngestState>,
    caller: Caller,
    page: PageQuery,
) -> Reply<Json<Page<DeadLetterBody>>> {
    caller.require(Scope::Read)?;
    let after = page.after().map(str::to_owned);
    let found = state
        .history
        .dead_letters(caller.tenant, page.rows(), after)
        .await?;
    let letters = found.letters.into_iter().map(Into::into).collect();
    Ok(Json(page.page(letters, found.next_cursor)))
}

/// Which refused events to try again; all unless said.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayInput {
    /// Positions of dead letters, at most 1,000. One that is there more than once counts once.
    #[serde(default)]
    #[schema(max_items = 1000)]
    positions: Option<Vec<PositionText>>,
    /// `next_cursor` of the replay before, to go on behind it.
    #[serde(default)]
    cursor: Option<String>,
}

/// A position, from 0 to 9223372036854775807: the decimal digits that a list shows, or a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PositionText(u64);

/// As a call may send it.
impl utoipa::PartialSchema for PositionText {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[0-9]{1,19}$"));
        let number = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(0));
        OneOfBuilder::new()
            .item(number)
            .item(text)
            .description(Some(
                "A position, from 0 to 9223372036854775807: the decimal digits that a list shows, or a whole number.",
            ))
            .into()
    }
}

impl utoipa::ToSchema for PositionText {}

impl<'de> Deserialize<'de> for PositionText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Whole(PositionVisitor))
    }
}

/// The digits of the largest position.
const DIGITS_MAX: usize = 19;

struct PositionVisitor;

impl Visitor<'_> for PositionVisitor {
    type Value = PositionText;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "a position: a whole number up to {}, or a string of its decimal digits",
            i64::MAX
        )
    }

    fn visit_i64<E: Error>(self, position: i64) -> Result<PositionText, E> {
        let wrong = |_| E::invalid_value(Unexpected::Signed(position), &self);
        position.try_into().map(PositionText).map_err(wrong)
    }

    fn visit_u64<E: Error>(self, position: u64) -> Result<PositionText, E> {
        let wrong = |_| E::invalid_value(Unexpected::Unsigned(position), &self);
        let position = i64::try_from(position).map_err(wrong)?;
        self.visit_i64(position)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PositionText, E> {
        let digits = (1..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let position = digits.then(|| text.parse::<i64>().ok()).flatten();
        let position = position.and_then(|position| position.try_into().ok());
        position
            .map(PositionText)
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// What became of the dead letters that were tried again.
#[derive(Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct ReplayAnswer {
    /// Now accepted and counted; their letters are gone.
    accepted: u64,
    /// Had been sent again in the meantime; their letters are gone.
    duplicates: u64,
    /// An event with the same source and id but another payload stands; their letters stay.
    conflicts: u64,
    /// Still invalid; their letters stay.
    rejected: u64,
    /// Kept only in part, so they cannot be tried: send them again. Their letters stay.
    cut: u64,
    /// Accepted events that a meter cannot read: amend or void them. Their letters stay until then.
    unreadable: u64,
    /// Send as `cursor` to go on with older letters; null when all were looked at.
    #[schema(value_type = Option<String>)]
    next_cursor: Option<Cursor>,
}

/// Replay dead letters.
///
/// Tries refused events again, as if they had come when they first came: all, the newest 10,000 in one call, or those
/// at `positions`. Doing it again changes nothing: what passed is gone from the list.
#[utoipa::path(
    post, path = "/v1/events/dead-letters/replay", tag = "Events",
    request_body(content = Option<ReplayInput>, content_type = "application/json"),
    responses(
        (status = 200, body = ReplayAnswer, description = "What became of them"),
        (status = 422, body = ProblemBody, description = "The body is invalid"),
        (status = 503, body = ProblemBody, description = "Try again later"),
    ),
    security(("api_key" = ["ingest"])),
)]
pub(crate) async fn replay(
    State(state): State<IngestState>,
    caller: Caller,
    MaybeJson(input): MaybeJson<ReplayInput>,
) -> Reply<Json<ReplayAnswer>> {
    caller.require(Scope::Ingest)?;
    let named = input.positions;
    if named.as_ref().is_some_and(|named| named.len() > PAGE_ROWS_MAX) {
        let detail = format!("has more than {PAGE_ROWS_MAX} positions: leave it out to replay all");
        return Err(Problem::invalid("/positions", detail).into());
    }
    let mut wanted: Option<BTreeSet<PositionText>> = named.map(|named| named.into_iter().collect());
    let mut answer = ReplayAnswer::default();
    let mut cursor = Cursor::after(REPLAY, input.cursor.as_deref())?;
    let mut looked_at = 0;
    while wanted.as_ref().is_none_or(|wanted| !wanted.is_empty()) {
        let page = state
            .history
            .dead_letters(caller.tenant, PAGE_ROWS_MAX, cursor)
            .await?;
        looked_at += page.letters.len();
        let mut letters = page.letters;
        if let Some(wanted) = &mut wanted {
            letters.retain(|letter| wanted.remove(&PositionText(letter.position().0)));
        }
        answer.add(letters, &state, caller.tenant).await?;
        cursor = page.next_cursor;
        let enough = wanted.is_none() && looked_at >= DEAD_LETTERS_REPLAYED_MAX;
        if cursor.is_none() || enough {
            break;
        }
    }
    answer.next_cursor = cursor
        .filter(|_| wanted.is_none())
        .map(|place| Cursor::of(REPLAY, &place));
    Ok(Json(answer))
}

impl ReplayAnswer {
    async fn add(
        &mut self,
        letters: Vec<DeadLetter>,
        state: &IngestState,
        tenant: TenantId,
    ) -> Result<(), Problem> {
        let tried = self.sort(letters);
        if tried.is_empty() {
            return Ok(());
        }
        let mut piece = {
            // What is refused again has its letter already.
            let none_kept = || false;
            let mut assembler = Assembler::new(state.origin(tenant, &NoDefaults), &none_kept);
            for (_, received, raw) in &tried {
                assembler.received_at(*received);
                assembler.event(&Line::Whole(raw));
            }
            assembler.take()
        };
        let good: Vec<u64> = piece.indexes().collect();
        // Not refused anew: they were counted when they came first.
        self.rejected += std::mem::take(&mut piece.refused).len() as u64;
        let outcomes = state.settle(tenant, &mut piece).await?;
        let mut passed = Vec::new();
        for (index, outcome) in good.into_iter().zip(&outcomes) {
            match outcome {
                Outcome::Accepted(_) => self.accepted += 1,
                Outcome::Duplicate(_) => self.duplicates += 1,
                Outcome::Conflict(_) => {
                    self.conflicts += 1;
                    continue;
                }
            }
            let row = usize::try_from(index).ok().and_then(|index| tried.get(index));
            passed.extend(row.map(|(position, _, _)| *position));
        }
        let resolved = passed
            .into_iter()
            .map(|position| state.intake.resolve(tenant, position));
        stream::iter(resolved)
            .buffer_unordered(RESOLVED_TOGETHER)
            .try_collect()
            .await
    }

    /// Those that can be tried; the others are counted.
    fn sort(&mut self, letters: Vec<DeadLetter>) -> Vec<(Position, Timestamp, Vec<u8>)> {
        let mut tried = Vec::with_capacity(letters.len());
        for letter in letters {
            match letter {
                DeadLetter::Unreadable { .. } => self.unreadable += 1,
                DeadLetter::Refused { cut: true, .. } => self.cut += 1,
                DeadLetter::Refused {
                    position,
                    received,
                    raw,
                    ..
                } => tried.push((position, received, raw)),
            }
        }
        tried
    }
}
