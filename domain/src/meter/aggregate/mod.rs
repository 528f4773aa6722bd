//! What a window of a meter holds. Cells are sums of signed parts: adding is commutative and associative, and a part
//! taken back leaves no trace, so neither order, repetition of merges nor later corrections can change a result.

mod cell;
mod codec;
mod finish;
mod wide;

pub use cell::{Cell, CellError, Distinct, Point, Sample, SampleValue};
pub use codec::{read_counts, write_counts};
pub use finish::{FinishError, Integral};
pub use wide::Wide;
