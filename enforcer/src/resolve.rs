use std::sync::Arc;

use turnpike_domain::catalog::{Catalog, Feature, LimitMode, LimitPeriod};
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::quota::{
    Access, EffectiveLimit, GrantPlan, Level, LevelCourse, MeteredAccess, access, granted_below, pools,
};
use turnpike_domain::time::{TimeRange, Timestamp};

use crate::Enforcer;
use crate::entry::{Cell, Entry, LimitCell, Metering, Pool, Resolved, Verdict};
use crate::slot::Slot;
use crate::track::{Past, Track};

/// How often a resolution starts over when the directory changes under it, before the caller is asked to come again.
const ATTEMPTS: usize = 8;

/// What an entry's decisions have to count against, before the slots are at hand.
pub(crate) struct Blueprint {
    generation: u64,
    at: Timestamp,
    until: Timestamp,
    verdict: Verdict,
    levels: Vec<LevelPlan>,
}

/// One level of a blueprint.
pub(crate) struct LevelPlan {
    pub(crate) track: Arc<Track>,
    limits: Vec<PlannedLimit>,
    grants: Option<PlannedGrants>,
    raised: Option<LimitPeriod>,
}

/// The grants of a level.
struct PlannedGrants {
    plan: Arc<GrantPlan<LevelCourse>>,
    /// By pool: the track whose past usage decides, and which part of it.
    past: Vec<(Arc<Track>, Past)>,
    /// In the minute of a change, what another pool uses in it decides too.
    held: Option<(Arc<Track>, TimeRange)>,
}

struct PlannedLimit {
    period: LimitPeriod,
    mode: LimitMode,
    /// `None`: only counted.
    limit: Option<EffectiveLimit>,
    range: TimeRange,
}

/// A resolution that is being put together.
struct Assembly {
    valid: TimeRange,
    cells: Vec<Cell>,
    limits: Vec<LimitCell>,
    watched: Vec<(Arc<Track>, u64)>,
    pools: Vec<Pool>,
}

impl LevelPlan {
    /// The most that the limits which grants raise grant without them; `None`: no bound.
    fn ceiling(&self) -> Option<Quantity> {
        let raised = self.limits.iter().filter(|one| Some(one.period) == self.raised);
        raised.filter_map(|one| one.limit?.ceiling).min()
    }

    fn ranges(&self) -> Vec<TimeRange> {
        let mut ranges: Vec<_> = self.limits.iter().map(|limit| limit.range).collect();
        ranges.sort_unstable();
        ranges.dedup();
        ranges
    }
}

impl Enforcer {
    /// What decisions on `entry` at `at` count against: what was compiled before if it stands, else compiled anew.
    pub(crate) async fn resolve(&self, entry: &Arc<Entry>, at: Timestamp) -> Result<Arc<Resolved>, Problem> {
        self.connected()?;
        match self.standing(entry, at) {
            Some(resolved) => Ok(resolved),
            // In a box, so that the futures of all decisions need not have room for it.
            None => Box::pin(self.resolve_anew(entry, at)).await,
        }
    }

    /// What was compiled before, if it stands.
    fn standing(&self, entry: &Entry, at: Timestamp) -> Option<Arc<Resolved>> {
        let resolved = entry.resolved.load();
        resolved.as_ref().filter(|r| self.stands(entry, r, at)).cloned()
    }

    async fn resolve_anew(&self, entry: &Arc<Entry>, at: Timestamp) -> Result<Arc<Resolved>, Problem> {
        for _ in 0..ATTEMPTS {
            if let Some(resolved) = self.standing(entry, at) {
                return Ok(resolved);
            }
            if let Some(resolved) = self.resolve_at_once(entry, at)? {
                return Ok(resolved);
            }
            let blueprint = self.blueprint(entry, at)?;
            for level in blueprint.levels {
                self.prepare(level.track.clone(), level.ranges(), None, at)
                    .await?;
                let Some(grants) = level.grants else { continue };
                for (track, past) in grants.past {
                    self.prepare(track, Vec::new(), Some(past), at).await?;
                }
                if let Some((track, range)) = grants.held {
                    self.prepare(track, vec![range], None, at).await?;
                }
            }
        }
        Err(Problem::new(
            Code::Unavailable,
            "customers and catalog change faster than limits can be compiled; try again",
        ))
    }

    /// Whether what was compiled for an entry still says what is so at `at`.
    #[inline]
    pub(crate) fn stands(&self, entry: &Entry, resolved: &Resolved, at: Timestamp) -> bool {
        resolved.stands(self.generations.of(entry.tenant), at)
    }

    /// The same without waiting: `None` when usage has to be read first.
    pub(crate) fn resolve_at_once(
        &self,
        entry: &Arc<Entry>,
        at: Timestamp,
    ) -> Result<Option<Arc<Resolved>>, Problem> {
        let blueprint = self.blueprint(entry, at)?;
        let Some(resolved) = self.assemble(blueprint) else {
            return Ok(None);
        };
        let resolved = Arc::new(resolved);
        if !self.stands(entry, &resolved, at) {
            return Ok(None);
        }
        // An older instant (a commit of what was reserved before) does not replace what stands now.
        let newer = entry
            .resolved
            .load()
            .as_ref()
            .is_some_and(|now| now.valid.start > at && now.generation == resolved.generation);
        if !newer {
            entry.resolved.store(Some(resolved.clone()));
        }
        Ok(Some(resolved))
    }

    fn blueprint(&self, entry: &Entry, at: Timestamp) -> Result<Blueprint, Problem> {
        let generation = self.generations.of(entry.tenant);
        let (tenant, directory) = (entry.tenant, &*self.parts.directory);
        let customer = self.known_customer(tenant, &entry.customer)?;
        let catalog = directory.catalog(tenant);
        let feature = catalog
            .features
            .get(&*entry.feature)
            .ok_or_else(|| Problem::not_found("feature", &entry.feature))?;
        // An event's subject is the customer's first; it has one, its key unless said.
        let subject: Arc<str> = customer.subjects.first().unwrap_or(&customer.key).as_str().into();
        let (access, until) = access(directory, tenant, customer, feature, at);
        let mut blueprint = Blueprint {
            generation,
            at,
            until,
            verdict: Verdict::Entitled(None),
            levels: Vec::new(),
        };
        match access {
            Access::Denied(reason) => blueprint.verdict = Verdict::Denied(reason),
            Access::Entitled { value } => blueprint.verdict = Verdict::Entitled(value),
            Access::Metered(metered) => {
                let meter = meter_of(&catalog, feature)?;
                blueprint.verdict = Verdict::Metered(Metering {
                    meter: meter.id,
                    subject,
                });
                self.plan_levels(entry, metered, meter, &mut blueprint);
            }
        }
        Ok(blueprint)
    }

    fn plan_levels(
        &self,
        entry: &Entry,
        metered: MeteredAccess,
        meter: &Arc<Meter>,
        blueprint: &mut Blueprint,
    ) {
        for level in metered.levels {
            let plan = self.plan_level(entry, &level, meter, blueprint);
            let begins = level.grants.iter().filter_map(|grant| grant.effective_at);
            let begins = begins
                .map(Timestamp::floor_minute)
                .filter(|begin| *begin > blueprint.at);
            blueprint.until = blueprint.until.min(begins.min().unwrap_or(Timestamp::MAX));
            blueprint.levels.push(plan);
        }
    }

    fn plan_level(
        &self,
        entry: &Entry,
        level: &Level,
        meter: &Arc<Meter>,
        blueprint: &Blueprint,
    ) -> LevelPlan {
        let (at, windows) = (blueprint.at, level.windows());
        let track = self.track(entry, level, meter);
        let (tenant, directory) = (entry.tenant, &*self.parts.directory);
        // What was drawn on a grant that went away since stays covered.
        let granted = || {
            let below = || granted_below(directory, tenant, &level.customer.key, &entry.feature);
            !level.grants.is_empty() || below()
        };
        let raised = level.allowance_period().filter(|_| granted());
        let plan = raised.and_then(|_| {
            let pools = || pools(directory, tenant, &level.customer, &entry.feature, at);
            track.grant_plan(blueprint.generation, at, pools)
        });
        let grants = plan.map(|plan| self.plan_grants(entry, &track, meter, plan));
        let planned = |period, mode, limit| PlannedLimit {
            period,
            mode,
            limit,
            range: windows.containing(period, at),
        };
        let mut limits: Vec<_> = level
            .limits
            .iter()
            .map(|limit| planned(limit.period, limit.mode, Some(*limit)))
            .collect();
        if level.only_grants {
            let nothing = EffectiveLimit {
                period: LimitPeriod::Ever,
                mode: LimitMode::Hard,
                limit: Quantity::ZERO,
                ceiling: Some(Quantity::ZERO),
            };
            limits.push(planned(LimitPeriod::Ever, LimitMode::Hard, Some(nothing)));
        } else if limits.is_empty() {
            // Without a limit the billing period is counted, so that the answer can say what was used.
            limits.push(planned(LimitPeriod::Billing, LimitMode::Overage, None));
        }
        LevelPlan {
            track,
            limits,
            grants,
            raised,
        }
    }

    /// The grants of the level whose track is `reader`, with the tracks of the pools that they went through.
    fn plan_grants(
        &self,
        entry: &Entry,
        reader: &Arc<Track>,
        meter: &Arc<Meter>,
        plan: Arc<GrantPlan<LevelCourse>>,
    ) -> PlannedGrants {
        let track_of = |course: &LevelCourse| {
            if *reader.customer == *course.customer() {
                return Arc::clone(reader);
            }
            self.track_of(entry, course.customer(), meter)
        };
        let past = plan.past().map(|(course, segments)| {
            let past = Past {
                reader: Arc::clone(reader),
                segments: segments.iter().map(|segment| segment.range).collect(),
            };
            (track_of(course), past)
        });
        let held = plan.held_elsewhere();
        PlannedGrants {
            past: past.collect(),
            held: held.map(|(course, range)| (track_of(course), range)),
            plan,
        }
    }

    /// Puts a blueprint together with its slots; `None` when one has to be made first.
    fn assemble(&self, blueprint: Blueprint) -> Option<Resolved> {
        let start = blueprint.at.floor_minute();
        let mut parts = Assembly {
            valid: TimeRange::new(start, blueprint.until),
            cells: Vec::new(),
            limits: Vec::new(),
            watched: Vec::new(),
            pools: Vec::new(),
        };
        for level in blueprint.levels {
            self.assemble_level(level, blueprint.at, &mut parts)?;
        }
        Some(Resolved {
            generation: blueprint.generation,
            valid: parts.valid,
            verdict: blueprint.verdict,
            cells: parts.cells.into(),
            limits: parts.limits.into(),
            watched: parts.watched.into(),
            pools: parts.pools.into(),
            options: crate::upgrade::Options::default(),
        })
    }

    /// What is left of a level's grants, and by how much they raise its limits.
    fn assemble_grants(
        &self,
        level: &LevelPlan,
        at: Timestamp,
        parts: &mut Assembly,
    ) -> Option<(Quantity, Option<Pool>)> {
        let Some(grants) = &level.grants else {
            return Some((Quantity::ZERO, None));
        };
        let mut used = Vec::new();
        for (track, past) in &grants.past {
            let (past, epoch) = track.history(past)?;
            parts.watched.push((track.clone(), epoch));
            used.push(past);
        }
        let held = match &grants.held {
            Some((track, range)) => Some(self.slot(track, *range, at)?),
            None => None,
        };
        parts.valid = parts.valid.intersect(&grants.plan.current().range)?;
        let standing = grants.plan.standing(&used);
        let raised = level.limits.iter().find(|one| Some(one.period) == level.raised);
        let slot = match raised {
            Some(planned) => Some(self.slot(&level.track, planned.range, at)?),
            None => None,
        };
        let used_of = |slot: &Option<Arc<Slot>>| slot.as_ref().map_or(Quantity::ZERO, |slot| slot.used());
        let covered = grants.plan.covered_now(&standing, used_of(&slot), used_of(&held));
        let covered = covered.map_or(Quantity::ZERO, |covered| {
            level.track.least_covered(grants.plan.current().range, covered)
        });
        let extra = grants.plan.extra(&standing, level.ceiling(), covered);
        let pool = Pool {
            customer: level.track.customer.clone(),
            grants: Arc::clone(&grants.plan),
            standing,
            held,
            cell: parts.cells.len(),
        };
        Some((extra, Some(pool)))
    }

    fn assemble_level(&self, level: LevelPlan, at: Timestamp, parts: &mut Assembly) -> Option<()> {
        let (extra, mut pool) = self.assemble_grants(&level, at, parts)?;
        let first = parts.cells.len();
        for planned in &level.limits {
            parts.valid = parts.valid.intersect(&planned.range)?;
            let raised = level.raised == Some(planned.period);
            let extra = if raised { extra } else { Quantity::ZERO };
            let limit = planned.limit.map(|limit| limit.raised(extra));
            let ceiling = limit.and_then(|limit| limit.ceiling).map(Quantity::parts);
            let found = parts.cells[first..]
                .iter()
                .position(|cell| cell.slot.range() == planned.range);
            let cell = if let Some(at) = found {
                first + at
            } else {
                let slot = self.slot(&level.track, planned.range, at)?;
                let ceiling = Quantity::MAX.parts();
                parts.cells.push(Cell { slot, ceiling });
                parts.cells.len() - 1
            };
            let least = &mut parts.cells[cell].ceiling;
            *least = (*least).min(ceiling.unwrap_or(Quantity::MAX.parts()));
            parts.limits.push(LimitCell {
                raised: extra.parts(),
                ..limit_cell(&level.track, planned, cell, limit)
            });
            if let Some(pool) = pool.take_if(|_| raised) {
                parts.pools.push(Pool { cell, ..pool });
            }
        }
        Some(())
    }

    /// The slot of a window, if it can be had without reading usage.
    pub(crate) fn slot(&self, track: &Arc<Track>, range: TimeRange, now: Timestamp) -> Option<Arc<Slot>> {
        track.slot(range, now, &|slot| self.attach_open_holds(track, slot))
    }
}

fn limit_cell(
    track: &Track,
    planned: &PlannedLimit,
    cell: usize,
    limit: Option<EffectiveLimit>,
) -> LimitCell {
    LimitCell {
        cell,
        customer: track.customer.clone(),
        period: planned.period,
        mode: planned.mode,
        limit: limit.map(|limit| limit.limit.parts()),
        ceiling: limit.and_then(|limit| limit.ceiling).map(Quantity::parts),
        raised: 0,
        resets_us: match planned.range.end {
            Timestamp::MAX => i64::MAX,
            end => end.micros(),
        },
    }
}

/// The meter of a metered feature, which must be one whose values add up.
pub(crate) fn meter_of<'a>(catalog: &'a Catalog, feature: &Feature) -> Result<&'a Arc<Meter>, Problem> {
    let key = feature.meter.as_deref().unwrap_or("");
    let meter = catalog.meters.get(key).ok_or_else(|| {
        let detail = format!(
            "the feature \"{}\" names the meter \"{key}\", which does not exist",
            feature.key
        );
        Problem::new(Code::Invalid, detail)
    })?;
    if !matches!(meter.aggregation, Aggregation::Sum | Aggregation::Count) {
        let detail = format!(
            "the meter \"{key}\" of the feature \"{}\" is neither a sum nor a count",
            feature.key
        );
        return Err(Problem::invalid("/feature", detail));
    }
    Ok(meter)
}
