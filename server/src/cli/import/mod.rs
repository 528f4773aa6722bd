//! `turnpike import`: a file of usage, streamed to the server.

mod access_log;
mod content_ids;
mod csv;
mod input;
mod mapping;
mod refused;
mod rows;
mod rules;
mod time;

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use indicatif::ProgressBar;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

use super::client::{Body, Client, ClientArgs};
use super::signals::StopSignals;
use super::{CommandError, output};
use mapping::{Format, Mapping};
use refused::RefusedFile;
use rows::{Place, Row, read_rows};
use rules::Rules;

/// Events sent in one request.
const BATCH_EVENTS: usize = 1_000;
/// Bytes after which a request is sent although it has fewer events.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Requests under way at once.
const IN_FLIGHT: usize = 4;
/// What to do when an import ends before its file.
const GO_ON: &str = "run the same command again to go on: nothing is counted twice";

/// Send a file of usage: CSV, NDJSON or an access log.
///
/// It can be stopped and run again: ids are the same each time, so what was counted is a duplicate.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike import usage.csv --type llm.request --subject-column customer --time-column at --data tokens=n
  turnpike import usage.csv --mapping mapping.toml
  turnpike import kosten.csv --delimiter ';' --decimal-comma --time-zone Europe/Berlin --time-format '%d.%m.%Y %H:%M' ...
  turnpike import events.ndjson.zst
  zcat access.log.*.gz | turnpike import - --format access-log

Rows without an id get one from their content and how often it came before. A row that is the same in another file is
therefore the same event; give files of different origin their own --source. A row that was sent again because the answer
to it was lost is told as a duplicate.

A row counts for the time in its --time-column. With --now it counts for the time at which it first arrives: the same file
sent again is duplicates, and moves nothing.")]
pub(crate) struct Import {
    /// The file; what is packed with gzip or zstd is unpacked; `-` is standard input.
    file: PathBuf,
    /// TOML file with the same names as the flags below.
    #[arg(long, value_name = "FILE")]
    mapping: Option<PathBuf>,
    /// Where rows that were refused are written, with the reasons; FILE.refused.ndjson unless said.
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
    /// Seconds to wait for a server that goes away in the middle; it then goes on where it was.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    retry_s: u32,
    #[command(flatten)]
    columns: Mapping,
    #[command(flatten)]
    client: ClientArgs,
}

/// What became of the rows of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Counts {
    /// New and counted.
    pub(crate) accepted: u64,
    /// Seen before.
    pub(crate) duplicates: u64,
    /// Seen before with another content.
    pub(crate) conflicts: u64,
    /// Refused, here or by the server.
    pub(crate) rejected: u64,
}

impl Import {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        let mapping = self.columns.clone().beneath(self.mapping.as_ref())?;
        let format = mapping.format(&self.file.to_string_lossy())?;
        let rules = mapping.rules(format)?;
        let advice = rules.advice_on_conflicts();
        let total = std::fs::metadata(&self.file).ok().map(|meta| meta.len());
        let bar = output::progress(total, "bytes");
        let wait = Duration::from_secs(u64::from(self.retry_s));
        let mut sending = Sending {
            client: self.client.client()?.patient(wait, bar.clone()),
            bar,
            counts: Counts::default(),
            refused: RefusedFile::beside(&self.file, self.refused.clone(), self.mapping.as_deref())?,
        };
        let mut stop = StopSignals::wait()?;
        let ended = tokio::select! {
            biased;
            signal = stop.next() => Err(CommandError::interrupted(signal, "stopped; what was on its way is not in these counts")),
            ended = sending.file(self.file.clone(), format, rules) => ended,
        };
        sending.bar.finish_and_clear();
        let refused = sending.refused.finish()?;
        let stopped = ended.as_ref().is_err_and(CommandError::is_interruption);
        if ended.is_ok() || stopped || sending.counts != Counts::default() {
            self.report(sending.counts, refused.as_ref())?;
        }
        ended.map_err(|error| error.with_hint(GO_ON))?;
        let Some(path) = refused else { return Ok(()) };
        let mut words = format!(
            "some rows were refused ({} says why); correct them in the file and import it again: nothing is counted twice",
            path.display()
        );
        if sending.counts.conflicts > 0 {
            words.push_str(advice);
        }
        Err(CommandError::negative(words))
    }

    fn report(&self, counts: Counts, refused: Option<&PathBuf>) -> Result<(), CommandError> {
        if self.client.json {
            let mut all = serde_json::to_value(counts).unwrap_or_default();
            all["refused_file"] = refused.map(|path| path.display().to_string()).into();
            return output::json(&all);
        }
        let rows = [
            ("accepted", counts.accepted),
            ("duplicates", counts.duplicates),
            ("conflicts", counts.conflicts),
            ("rejected", counts.rejected),
        ];
        let rows = rows.map(|(name, count)| vec![name.to_owned(), output::thousands(count)]);
        output::line(&output::table(&["rows", "#count"], rows))
    }
}

/// Events of one request, and where they come from.
struct Batch {
    lines: Vec<u8>,
    /// Place and text range of each event.
    rows: Vec<(Place, std::ops::Range<usize>)>,
}

impl Batch {
    fn new() -> Self {
        Self {
            lines: Vec::new(),
            rows: Vec::new(),
        }
    }

    fn push(&mut self, place: Place, event: &str) {
        let start = self.lines.len();
        self.lines.extend_from_slice(event.as_bytes());
        self.rows.push((place, start..self.lines.len()));
        self.lines.push(b'\n');
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= BATCH_EVENTS || self.lines.len() >= BATCH_BYTES
    }
}

/// What the reading thread hands over.
enum Read {
    Batch(Batch),
    /// A row that became no event: place, reason, content.
    Refused(Place, String, String),
}

/// A file on its way to a server.
struct Sending {
    client: Client,
    bar: ProgressBar,
    counts: Counts,
    refused: RefusedFile,
}

impl Sending {
    async fn file(&mut self, path: PathBuf, format: Format, rules: Rules) -> Result<(), CommandError> {
        let read_bytes = Arc::new(AtomicU64::new(0));
        let (sender, receiver) = tokio::sync::mpsc::channel(IN_FLIGHT * 2);
        let taken = Arc::clone(&read_bytes);
        // A thread of its own: nobody waits for it where the import is stopped while it waits for input.
        let reader =
            std::thread::spawn(move || read_batches(input::open(&path, taken)?, format, &rules, &sender));
        let client = self.client.clone();
        let mut sent = pin!(
            ReceiverStream::new(receiver)
                .map(|read| send(&client, read))
                .buffered(IN_FLIGHT)
        );
        while let Some(answer) = sent.next().await {
            self.count(answer?)?;
            self.bar.set_position(read_bytes.load(Ordering::Relaxed));
        }
        reader
            .join()
            .map_err(|_| CommandError::failed("the file could not be read to its end"))?
    }

    fn count(&mut self, answered: Answered) -> Result<(), CommandError> {
        let Answered { read, answer } = answered;
        let batch = match read {
            Read::Refused(place, why, content) => {
                self.counts.rejected += 1;
                return self.refused.write(
                    &json!({"row": place.row, "line": place.line, "code": "invalid_row", "detail": why, "content": content}),
                );
            }
            Read::Batch(batch) => batch,
        };
        let get = |name: &str| answer[name].as_u64().unwrap_or(0);
        self.counts.accepted += get("accepted");
        self.counts.duplicates += get("duplicates");
        self.counts.conflicts += get("conflicts");
        self.counts.rejected += get("rejected");
        for error in answer["errors"].as_array().into_iter().flatten() {
            let at = error["index"]
                .as_u64()
                .and_then(|index| batch.rows.get(usize::try_from(index).ok()?));
            let event = at.map(|(_, range)| String::from_utf8_lossy(&batch.lines[range.clone()]));
            self.refused.write(&json!({
                "row": at.map(|(place, _)| place.row), "line": at.map(|(place, _)| place.line), "id": error["id"], "code": error["code"], "detail": error["detail"], "event": event,
            }))?;
        }
        Ok(())
    }
}

struct Answered {
    read: Read,
    answer: Value,
}

async fn send(client: &Client, read: Read) -> Result<Answered, CommandError> {
    let answer = match &read {
        Read::Refused(..) => Value::Null,
        Read::Batch(batch) => {
            let body = Body::Bytes("application/x-ndjson", batch.lines.clone().into());
            client.json(Method::POST, "/v1/events", body).await?
        }
    };
    Ok(Answered { read, answer })
}

fn read_batches(
    input: Box<dyn std::io::BufRead + Send>,
    format: Format,
    rules: &Rules,
    sender: &tokio::sync::mpsc::Sender<Read>,
) -> Result<(), CommandError> {
    let mut batch = Batch::new();
    read_rows(input, format, rules, &mut |row: Row| match row.event {
        Err((why, content)) => sender
            .blocking_send(Read::Refused(row.place, why, content))
            .is_ok(),
        Ok(event) => {
            batch.push(row.place, &event);
            !batch.is_full()
                || sender
                    .blocking_send(Read::Batch(std::mem::replace(&mut batch, Batch::new())))
                    .is_ok()
        }
    })?;
    if !batch.rows.is_empty() {
        // When nobody listens any more the import has ended already.
        let _ = sender.blocking_send(Read::Batch(batch));
    }
    Ok(())
}
