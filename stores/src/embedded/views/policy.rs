//! Which runs are merged next.
//!
//! Runs are kept in the order of their age and only neighbours are merged, so that "newer" keeps its meaning. A run's
//! tier is the logarithm of its size; as soon as eight runs of one tier stand together, with at most smaller ones between,
//! they become one of the next tier. So each entry is written once per tier, and there are at most about seven runs of each.

use std::ops::Range;

/// Runs of a tier that are merged.
pub(super) const FAN_IN: usize = 8;
/// Runs of one kind at the most: beyond them a checkpoint merges first.
pub(super) const RUNS_MAX: usize = 64;

/// A run as the choice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Bytes.
    pub(super) bytes: u64,
    /// Whether a merge of it is under way.
    pub(super) busy: bool,
}

/// The runs to merge next among `runs`, newest first: small ones before large ones, and at most `bytes_max` bytes in all.
pub(super) fn choose(runs: &[Candidate], bytes: Range<u64>) -> Option<Range<usize>> {
    let mut tiers: Vec<u32> = runs.iter().map(|run| tier(run.bytes)).collect();
    tiers.sort_unstable();
    tiers.dedup();
    for wanted in tiers {
        for segment in segments(runs, |run| !run.busy && tier(run.bytes) <= wanted) {
            let members = &runs[segment.clone()];
            let full = members.iter().filter(|run| tier(run.bytes) == wanted).count() >= FAN_IN;
            if full && bytes.contains(&total(members)) {
                return Some(segment);
            }
        }
    }
    None
}

/// The cheapest neighbours to merge when there are too many runs.
pub(super) fn cheapest(runs: &[Candidate]) -> Option<Range<usize>> {
    segments(runs, |run| !run.busy)
        .into_iter()
        .flat_map(|segment| {
            let windows = segment.end.saturating_sub(FAN_IN - 1);
            (segment.start..windows).map(|start| start..start + FAN_IN)
        })
        .min_by_key(|window| total(&runs[window.clone()]))
}

fn total(runs: &[Candidate]) -> u64 {
    runs.iter().map(|run| run.bytes).sum()
}

/// Three bits of size are a tier.
fn tier(bytes: u64) -> u32 {
    bytes.max(1).ilog2() / 3
}

/// The longest stretches of neighbours that fulfil `wanted`.
fn segments(runs: &[Candidate], wanted: impl Fn(&Candidate) -> bool) -> Vec<Range<usize>> {
    let mut segments = Vec::new();
    let mut start = 0;
    for at in 0..=runs.len() {
        if at < runs.len() && wanted(&runs[at]) {
            continue;
        }
        if start < at {
            segments.push(start..at);
        }
        start = at + 1;
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs(sizes: &[u64]) -> Vec<Candidate> {
        let run = |bytes: &u64| Candidate {
            bytes: *bytes,
            busy: false,
        };
        sizes.iter().map(run).collect()
    }

    #[test]
    fn eight_of_a_tier_are_merged() {
        assert_eq!(choose(&runs(&[100; 7]), 0..u64::MAX), None);
        assert_eq!(choose(&runs(&[100; 8]), 0..u64::MAX), Some(0..8));
        assert_eq!(choose(&runs(&[100; 11]), 0..u64::MAX), Some(0..11));
    }

    #[test]
    fn small_ones_go_first_and_alone() {
        let sizes = [vec![100; 8], vec![100_000; 8]].concat();
        assert_eq!(choose(&runs(&sizes), 0..u64::MAX), Some(0..8));
        assert_eq!(choose(&runs(&sizes), 10_000..u64::MAX), Some(0..16));
        let sizes = [vec![100; 7], vec![100_000; 1]].concat();
        assert_eq!(
            choose(&runs(&sizes), 0..u64::MAX),
            None,
            "a large run is not written again for few small ones"
        );
    }

    #[test]
    fn runs_under_way_are_left_alone() {
        let mut some = runs(&[100; 16]);
        some[7].busy = true;
        assert_eq!(choose(&some, 0..u64::MAX), Some(8..16));
        some[12].busy = true;
        assert_eq!(choose(&some, 0..u64::MAX), None);
        assert_eq!(cheapest(&some), None);
    }

    #[test]
    fn cheapest_neighbours() {
        let mut sizes = vec![1_000_000; 30];
        sizes[12..20].fill(1);
        assert_eq!(cheapest(&runs(&sizes)), Some(12..20));
        assert_eq!(cheapest(&runs(&sizes[..7])), None);
    }

    proptest! {
        #[test]
        fn few_runs_remain_and_little_is_written_again(sizes in prop::collection::vec(1_u64..1_000_000, 1..600)) {
            let mut now: Vec<Candidate> = Vec::new();
            let (mut added, mut written) = (0, 0);
            for bytes in sizes {
                now.insert(0, Candidate { bytes, busy: false });
                added += bytes;
                while let Some(range) = choose(&now, 0..u64::MAX) {
                    let bytes = total(&now[range.clone()]);
                    written += bytes;
                    now.splice(range, [Candidate { bytes, busy: false }]);
                }
            }
            prop_assert!(now.len() <= RUNS_MAX, "{} runs", now.len());
            prop_assert!(written <= added * 6, "{written} bytes written for {added}");
        }
    }
}
