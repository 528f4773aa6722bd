use std::sync::atomic::{AtomicU64, Ordering};

use turnpike_domain::port::StoreError;

/// The names of the fail points, one per durable step, that any work with events and the control store passes. Tests fire each of
/// them.
pub const POINTS: &[&str] = &[
    "log.before_append",
    "log.before_write",
    "log.after_write",
    "log.after_sync",
    "log.segment_created",
    "log.segment_deleted",
    "views.ids_written",
    "views.rows_written",
    "views.before_manifest",
    "views.after_manifest",
    "views.merged",
    "sql.before_commit",
    "sql.after_commit",
    "sql.marked",
];

/// Those of durable steps that come only in a state that a test has to bring about: when retention moves on, with the meta of
/// many meters, at the first start. Each has a test beside its step.
pub const POINTS_APART: &[&str] = &[
    "log.horizon_written",
    "views.meta_written",
    "data_dir.format_written",
];

fn is_point(name: &str) -> bool {
    POINTS.contains(&name) || POINTS_APART.contains(&name)
}

/// What happens at fail points: nothing, unless a test named one.
///
/// `name:n` ends the process, as SIGKILL would, when point `name` is passed for the `n`th time; `name:n:error` makes that
/// step fail instead, and
/// `name:n:down` that step and all later ones of the name.
#[derive(Debug, Default)]
pub struct FailPoints {
    armed: Option<Armed>,
}

#[derive(Debug)]
struct Armed {
    name: String,
    at: u64,
    then: Then,
    passed: AtomicU64,
}

/// What an armed point does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Ends the process.
    End,
    /// Fails once.
    Error,
    /// Fails from then on.
    Down,
}

impl FailPoints {
    /// Arms the point that `text` names.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or("").to_owned();
        let at = parts
            .next()
            .unwrap_or("1")
            .parse()
            .map_err(|_| format!("\"{text}\" is not name:count[:error|:down]"))?;
        let then = match parts.next() {
            Some("error") => Then::Error,
            Some("down") => Then::Down,
            _ => Then::End,
        };
        if !is_point(&name) {
            return Err(format!("there is no fail point \"{name}\""));
        }
        Ok(Self {
            armed: Some(Armed {
                name,
                at,
                then,
                passed: AtomicU64::new(0),
            }),
        })
    }

    /// Passes the point `name`.
    pub fn pass(&self, name: &'static str) -> Result<(), StoreError> {
        debug_assert!(is_point(name));
        let Some(armed) = self.armed.as_ref().filter(|armed| armed.name == name) else {
            return Ok(());
        };
        let passed = armed.passed.fetch_add(1, Ordering::SeqCst) + 1;
        if passed < armed.at || (passed > armed.at && armed.then != Then::Down) {
            return Ok(());
        }
        if armed.then != Then::End {
            return Err(StoreError::Failed(format!("fail point {name}")));
        }
        // Written raw, for nothing may run between the point and the end.
        eprintln!("fail point {name} ends the process");
        std::process::abort();
    }
}
