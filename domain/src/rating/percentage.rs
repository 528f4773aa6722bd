use super::RatingError;
use super::exact::Exact;
use super::price::Percentage;
use super::rate::{RatedLine, Usage};
use crate::quantity::Quantity;

/// Each event by itself, in order: first the free events and the free amount, then rate, fixed amount and bounds on
/// what is left. An event is free while both free bounds last; one that is free altogether costs nothing.
pub(super) fn lines(model: &Percentage, usage: &Usage) -> Result<Vec<RatedLine>, RatingError> {
    let Usage::Events(events) = usage else {
        return Err(RatingError::NeedsEvents);
    };
    let mut free = Free::of(model);
    Ok(events
        .iter()
        .enumerate()
        .map(|(slot, amount)| event_line(model, slot, *amount, &mut free))
        .collect())
}

/// What is still free; `None` where there is no such bound.
struct Free {
    events: Option<u64>,
    amount: Option<Exact>,
}

impl Free {
    fn of(model: &Percentage) -> Self {
        Self {
            events: (model.free_events > 0).then_some(model.free_events),
            amount: (model.free_amount > Quantity::ZERO).then(|| model.free_amount.into()),
        }
    }

    /// Takes from what is free; the part of `amount` that is.
    fn take(&mut self, amount: &Exact) -> Option<Exact> {
        let (events, left) = (&mut self.events, &mut self.amount);
        if events.is_none() && left.is_none() {
            return None;
        }
        if events.is_some_and(|events| events == 0) || left.as_ref().is_some_and(Exact::is_zero) {
            return None;
        }
        if let Some(events) = events {
            *events -= 1;
        }
        let Some(left) = left else {
            return Some(amount.clone());
        };
        let part = amount.clone().min(left.clone());
        *left = &*left - &part;
        Some(part)
    }
}

fn event_line(model: &Percentage, slot: usize, amount: Quantity, free: &mut Free) -> RatedLine {
    let amount = Exact::from(amount.max(Quantity::ZERO));
    let free_part = free.take(&amount);
    let charged = free_part
        .as_ref()
        .map_or_else(|| amount.clone(), |part| &amount - part);
    let rate = Exact::from(model.rate_percent).percent();
    if free_part.is_some() && charged.is_zero() {
        return RatedLine::new(slot, charged, rate, Exact::zero());
    }
    let mut line = RatedLine::new(slot, charged, rate, model.fixed_amount.into());
    if let Some(least) = model.min_per_event {
        line.amount = line.amount.max(least.into());
    }
    if let Some(most) = model.max_per_event {
        line.amount = line.amount.min(most.into());
    }
    line
}
