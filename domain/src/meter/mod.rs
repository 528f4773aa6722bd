//! Meters: what is measured, how it is read from events, and how it is added up.

pub mod aggregate;
mod definition;
mod extract;
mod path;
mod reader;
mod scalar;

pub use definition::{Aggregation, FilterValue, Meter, MeterDefinition};
pub use extract::Fields;
pub use path::{Path, PathError, Step};
pub use reader::{Readers, Reading, TypeReader, Unreadable};
