use std::sync::OnceLock;

use metrics::Counter;
use turnpike_domain::quota::Reason;

/// A call that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Check,
    Consume,
    Reserve,
    Commit,
}

impl Call {
    const ALL: [Self; 4] = [Self::Check, Self::Consume, Self::Reserve, Self::Commit];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Consume => "consume",
            Self::Reserve => "reserve",
            Self::Commit => "commit",
        }
    }
}

/// Counts decisions by call and reason. Each counter is looked up once, when it first counts.
#[derive(Default)]
pub(crate) struct Tally([[OnceLock<Counter>; Reason::ALL.len()]; Call::ALL.len()]);

impl Tally {
    pub(crate) fn count(&self, call: Call, reason: Reason) {
        let found = |call: Call, reason: Reason| {
            metrics::counter!(
                "turnpike_quota_decisions_total", "call" => call.as_str(), "reason" => reason.as_str()
            )
        };
        self.0[call as usize][reason as usize]
            .get_or_init(|| found(call, reason))
            .increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_and_reason_has_its_place() {
        assert!(
            Call::ALL
                .iter()
                .enumerate()
                .all(|(at, call)| *call as usize == at)
        );
        assert!(
            Reason::ALL
                .iter()
                .enumerate()
                .all(|(at, reason)| *reason as usize == at)
        );
    }
}
