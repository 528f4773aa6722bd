//! Quotas: who is entitled to what, the windows of limits, how grants are used up, and what a decision says.
//!
//! All of it is pure. The live counts stand in the quota engine, which asks these rules what to count against.

mod access;
mod course;
mod decision;
mod grants;
mod limit;
mod lineage;
mod pools;
mod window;

pub use access::{
    Access, Level, MeteredAccess, Provision, access, access_if_given, offered, provision, zone_of,
};
pub use course::{Allowance, Bound, Course, LevelCourse};
pub use decision::{Decision, Figures, Reason, decide, granted};
pub use grants::{Ahead, GrantPlan, Placed, Pool, Pools, Segment, Standing, Stay};
pub use limit::EffectiveLimit;
pub use pools::{granted_below, pools};
pub use window::Windows;
pub(crate) use window::next_change;
