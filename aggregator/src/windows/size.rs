//! What windows take in memory, estimated from how the standard library's and hashbrown's containers grow. A test compares the
//! estimates with what the allocator gives out.

use turnpike_domain::meter::aggregate::{Cell, Distinct, Point, Sample, SampleValue};
use turnpike_domain::quantity::Quantity;

/// Places of a hash map for each entry: it is between 7/16 and 7/8 full, and while it grows the old one is there too.
const HASHED_PLACES: usize = 2;
/// Entries of a full node of the standard library's B-trees, and of one after its split when keys ascend.
const NODE_ENTRIES: usize = 11;
const SPLIT_ENTRIES: usize = 6;
/// What the allocator takes beside what is asked for.
const ALLOCATION_BYTES: usize = 16;

/// Estimated bytes of a value in a cell that holds its values apart.
const VALUE_BYTES: usize = 128;

/// Estimated bytes that a hash map takes more for one more entry.
pub(super) const fn place<K, V>() -> usize {
    HASHED_PLACES * size_of::<(K, V)>()
}

/// Estimated bytes that a B-tree with `entries` takes more for one more.
pub(super) fn tree_growth<K, V>(entries: usize) -> usize {
    let opens_node =
        entries == 0 || entries >= NODE_ENTRIES && (entries - NODE_ENTRIES).is_multiple_of(SPLIT_ENTRIES);
    if opens_node { node_bytes::<K, V>() } else { 0 }
}

/// Estimated bytes of a B-tree that was made of `entries` at once: its nodes are full.
pub(super) const fn full_tree_bytes<K, V>(entries: usize) -> usize {
    entries.div_ceil(NODE_ENTRIES) * node_bytes::<K, V>()
}

const fn node_bytes<K, V>() -> usize {
    NODE_ENTRIES * (size_of::<K>() + size_of::<V>()) + 2 * ALLOCATION_BYTES
}

/// Bytes of an array with room for `places`.
pub(super) const fn array_bytes<T>(places: usize) -> usize {
    if places == 0 {
        0
    } else {
        places * size_of::<T>() + ALLOCATION_BYTES
    }
}

/// Estimated bytes of a text on the heap.
pub(super) fn text_bytes(len: usize) -> usize {
    if len == 0 { 0 } else { len + ALLOCATION_BYTES }
}

/// The number of values that a cell holds apart.
pub(super) fn values(cell: &Cell) -> usize {
    match cell {
        Cell::Count(_) | Cell::Sum(..) => 0,
        Cell::Values(numbers) => numbers.len(),
        Cell::Distinct(texts) => texts.len(),
        Cell::Points(points) => points.len(),
    }
}

/// Estimated bytes of a cell, quickly: from the number of its values alone.
pub(crate) fn cell_bytes(cell: &Cell) -> usize {
    size_of::<Cell>() + values(cell) * VALUE_BYTES
}

/// Estimated bytes that a cell which held `values` takes more for `sample`.
pub(super) fn value_growth(cell: &Cell, values: usize, sample: &Sample<'_>) -> usize {
    match cell {
        Cell::Count(_) | Cell::Sum(..) => 0,
        Cell::Values(_) => tree_growth::<Quantity, i64>(values),
        Cell::Distinct(_) => {
            let text = match &sample.value {
                SampleValue::Text(text) | SampleValue::NumberText(text) => text.len(),
                SampleValue::None | SampleValue::Number(_) => 0,
            };
            tree_growth::<Distinct, i64>(values) + text_bytes(text)
        }
        Cell::Points(_) => {
            let texts = text_bytes(sample.source.len()) + text_bytes(sample.id.len());
            tree_growth::<Point, i64>(values) + texts
        }
    }
}
