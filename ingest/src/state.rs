use std::sync::Arc;

use turnpike_domain::identity::NameKey;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::history::History;
use turnpike_domain::port::intake::Intake;
use turnpike_domain::time::{Clock, Randomness};

use crate::IngestOptions;

/// What the gateway is made from.
pub struct IngestParts {
    /// The way into the log.
    pub intake: Arc<dyn Intake>,
    /// Looking at what was sent.
    pub history: Arc<dyn History>,
    /// Who and what there is.
    pub directory: Arc<dyn Directory>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Identifiers, for clients that send none.
    pub randomness: Arc<dyn Randomness>,
    /// The secret of names and payload hashes.
    pub key: NameKey,
    /// What an operator may set.
    pub options: IngestOptions,
}

/// What the gateway's handlers share. Cheap to clone.
#[derive(Clone)]
pub struct IngestState(Arc<IngestParts>);

impl IngestState {
    /// A gateway made from `parts`.
    pub fn new(parts: IngestParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl std::ops::Deref for IngestState {
    type Target = IngestParts;

    fn deref(&self) -> &IngestParts {
        &self.0
    }
}
