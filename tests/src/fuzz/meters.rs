//! Meters: their definition with its paths and filter, and what they read from events.
//!
//! Input: a line with the definition in JSON, and on each line behind it the `data` of an event.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use turnpike_domain::identity::MeterId;
use turnpike_domain::meter::aggregate::Cell;
use turnpike_domain::meter::{Fields, FilterValue, Meter, MeterDefinition, Path, Reading, Step, TypeReader};
use turnpike_domain::record::EventRecord;

use super::divided;

/// Lines that are looked at.
const LINES_MAX: usize = 64;

/// See [`super::Target`].
///
/// # Panics
/// Where a definition is not written as it is read, a filter or a dimension is not what following its path gives, or a
/// sample that is taken back leaves something.
pub fn enter(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let (definition, events) = divided(text, "\n");
    let Ok(definition) = serde_json::from_str::<MeterDefinition>(definition) else {
        return false;
    };
    let meter = match definition.into_meter(MeterId(1)) {
        Ok(meter) => meter,
        Err(problem) => {
            assert!(
                problem.fields.iter().all(|field| field.pointer.starts_with('/')),
                "{problem:?}"
            );
            return false;
        }
    };
    let written = serde_json::to_string(&MeterDefinition::of(&meter)).expect("a definition is JSON");
    let again: MeterDefinition = serde_json::from_str(&written).expect("what was written");
    assert_eq!(again.into_meter(MeterId(1)).as_ref(), Ok(&meter), "{written}");
    let meter = Arc::new(meter);
    let reader = TypeReader::new([Arc::clone(&meter)]).expect("paths that were checked");
    let mut fields = Fields::default();
    for data in events.lines().take(LINES_MAX) {
        // What the gateway lets in: valid JSON, of whatever kind, with strings that are text.
        if serde_json::from_str::<serde_json::Value>(data).is_ok() {
            look(&meter, &reader, data.trim(), &mut fields);
        }
    }
    true
}

fn look(meter: &Meter, reader: &TypeReader, data: &str, fields: &mut Fields) {
    let event = EventRecord {
        tenant: 1,
        source: "s",
        id: "i",
        kind: &meter.event_type,
        subject: "u",
        time_us: 1,
        time_sent: true,
        received_us: 2,
        data,
        extensions: "",
        grant: None,
    };
    let mut taken = Vec::new();
    reader.read(&event, fields, |_, reading| taken.push(reading));
    if !data.starts_with('{') {
        // No event has such data; a meter without paths does not look at it.
        return;
    }
    let passes = meter
        .filter
        .iter()
        .all(|(path, values)| followed(data, path).is_some_and(|raw| values.contains(&text(&raw))));
    assert_eq!(taken.len(), usize::from(passes), "{meter:?} of {data}");
    if let Some(Ok(reading)) = taken.first() {
        let group: Vec<_> = meter.group_by.values().map(|path| followed(data, path)).collect();
        let group: Vec<_> = group
            .into_iter()
            .map(|raw| raw.map_or(String::new(), |raw| text(&raw)))
            .collect();
        assert_eq!(reading.group().collect::<Vec<_>>(), group, "{meter:?} of {data}");
        assert_adds_up(meter, reading);
    }
}

fn assert_adds_up(meter: &Meter, reading: &Reading<'_, '_>) {
    let mut cell = Cell::new(meter.aggregation);
    cell.add(&reading.sample, false)
        .expect("a sample of the meter's kind");
    assert!(cell.has_events() && !cell.is_empty());
    let mut bytes = Vec::new();
    cell.encode(&mut bytes);
    assert_eq!(Cell::decode(&bytes).as_ref(), Some(&cell));
    cell.add(&reading.sample, true)
        .expect("a sample of the meter's kind");
    assert!(cell.is_empty(), "{cell:?}");
}

/// The value at the end of a path, found step by step; of equal keys the last.
fn followed(data: &str, path: &str) -> Option<Box<RawValue>> {
    let mut at = RawValue::from_string(data.to_owned()).ok()?;
    for step in Path::parse(path).expect("a path that was checked").steps() {
        let within = match step {
            Step::Member(name) => {
                let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(at.get()).ok()?;
                members.remove(name)
            }
            Step::Index(index) => {
                let elements: Vec<Box<RawValue>> = serde_json::from_str(at.get()).ok()?;
                elements.into_iter().nth(*index as usize)
            }
        };
        at = within?;
    }
    Some(at)
}

/// The text by which a value is compared: what a filter of the same spelling has; nothing for null, lists and objects.
fn text(raw: &RawValue) -> String {
    let value: Option<FilterValue> = serde_json::from_str(raw.get()).ok();
    value.map_or_else(String::new, |value| value.0)
}
