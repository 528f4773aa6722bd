use super::*;
use crate::money::Currency;
use crate::problem::Code;
use crate::quantity::Quantity;
use crate::rating::Price;
use crate::record::{Position, Watermark};
use crate::time::{TimeRange, Timestamp};

fn range() -> TimeRange {
    let at = |text| Timestamp::parse(text).unwrap();
    TimeRange::new(at("2026-01-01T00:00:00Z"), at("2026-02-01T00:00:00Z"))
}

fn price() -> Price {
    let shape =
        serde_json::json!({"key": "tokens", "meter": "tokens", "model": "per_unit", "unit_amount": "0.5"});
    serde_json::from_value(shape).unwrap()
}

fn line(kind: LineKind, quantity: i64, amount: i64) -> Line {
    let price = price();
    let counted = Counted {
        subjects: vec!["acme".to_owned()],
        below: Vec::new(),
    };
    let basis = match kind {
        LineKind::Minimum => Basis::Minimum { price, counted },
        LineKind::Adjustment => Basis::Adjustment {
            price,
            counted,
            billed_quantity: Quantity::ONE,
            billed_amount: 50,
        },
        _ => Basis::Usage { price, counted },
    };
    let line = Line {
        kind,
        source: "plan/pro@1".into(),
        price: "tokens".into(),
        meter: Some("tokens".into()),
        description: "Tokens".into(),
        quantity: Quantity::from_units(quantity),
        amount,
        period: range(),
        basis,
        hash: String::new(),
    };
    line.sealed()
}

#[test]
fn a_basis_without_customers_below_is_written_as_before_there_were_any() {
    let mut line = line(LineKind::Usage, 10, 500);
    let text = serde_json::to_string(&line.basis).unwrap();
    assert!(text.ends_with(r#""subjects":["acme"]}"#), "{text}");
    assert_eq!(serde_json::from_str::<Basis>(&text).unwrap(), line.basis);
    let Basis::Usage { counted, .. } = &mut line.basis else {
        panic!("a line of usage")
    };
    counted.below.push(SubjectTime {
        subject: "team".to_owned(),
        start: range().start,
        end: range().end,
    });
    let below = serde_json::to_string(&line.basis).unwrap();
    assert_eq!(serde_json::from_str::<Basis>(&below).unwrap(), line.basis);
    assert_ne!(line.seal(), line.hash, "whose events it counts is sealed");
}

fn invoice() -> Invoice {
    let lines = vec![line(LineKind::Usage, 10, 500), line(LineKind::Minimum, 0, 100)];
    let mut invoice = Invoice {
        id: "i".into(),
        number: Some(7),
        customer: "acme".into(),
        parties: Some(Parties {
            seller: "Lab".into(),
            bill_to: BillTo {
                name: "Acme".into(),
                email: None,
            },
        }),
        subscription: "s".into(),
        status: InvoiceStatus::Open,
        currency: Currency::USD,
        period: range(),
        round: 0,
        totals: Totals::of(&lines).unwrap(),
        lines,
        watermark: Some(Watermark(vec![Position(3), Position(9)])),
        catalog_version: 2,
        previous_hash: "before".into(),
        hash: String::new(),
        created: range().end,
        locks_at: range().end,
        finalized: Some(range().end),
    };
    invoice.hash = invoice.seal();
    invoice
}

#[test]
fn every_fact_of_a_final_invoice_is_under_its_hash() {
    assert_eq!(compare_seals(&invoice()), vec![]);
    let changes: [fn(&mut Invoice); 18] = [
        |i| i.number = Some(8),
        |i| i.customer = "other".into(),
        |i| i.subscription = "other".into(),
        |i| i.currency = Currency::parse("EUR").unwrap(),
        |i| i.period.start = Timestamp::EPOCH,
        |i| i.totals.total += 1,
        |i| i.watermark = None,
        |i| i.catalog_version = 3,
        |i| i.previous_hash.clear(),
        |i| i.parties = None,
        |i| i.parties.as_mut().unwrap().seller.clear(),
        |i| i.parties.as_mut().unwrap().bill_to.name.clear(),
        |i| i.parties.as_mut().unwrap().bill_to.email = Some("a@example.com".into()),
        |i| i.lines[0].amount += 1,
        |i| i.lines[0].quantity = Quantity::ONE,
        |i| i.lines[1].description = "another".into(),
        |i| i.lines.swap(0, 1),
        |i| i.lines.truncate(1),
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut changed = invoice();
        change(&mut changed);
        assert!(!compare_seals(&changed).is_empty(), "change {at} was not found");
    }
    let paid = Invoice {
        status: InvoiceStatus::Paid,
        ..invoice()
    };
    assert_eq!(compare_seals(&paid), vec![], "the status is no part of it");
}

#[test]
fn fields_never_run_into_each_other() {
    let mut a = line(LineKind::Usage, 1, 1);
    let mut b = a.clone();
    (a.price, a.description) = ("ab".into(), "c".into());
    (b.price, b.description) = ("a".into(), "bc".into());
    assert_ne!(a.seal(), b.seal());
}

#[test]
fn a_basis_survives_its_text() {
    for kind in [LineKind::Usage, LineKind::Minimum, LineKind::Adjustment] {
        let basis = line(kind, 1, 1).basis;
        let text = serde_json::to_string(&basis).unwrap();
        assert_eq!(serde_json::from_str::<Basis>(&text).unwrap(), basis);
    }
    let recurring = Basis::Recurring {
        price: price(),
        part_us: 1,
        whole_us: 2,
    };
    let text = serde_json::to_string(&recurring).unwrap();
    assert_eq!(serde_json::from_str::<Basis>(&text).unwrap(), recurring);
}

#[test]
fn what_was_billed_is_summed_by_period_and_price() {
    let mut other = line(LineKind::Usage, 4, 40);
    other.price = "other".into();
    let lines = [
        line(LineKind::Usage, 10, 500),
        line(LineKind::Minimum, 0, 100),
        other,
        line(LineKind::Adjustment, -3, -150),
    ];
    let billed = sum_billed(lines.iter()).unwrap();
    let sums: Vec<_> = billed
        .iter()
        .map(|sum| (sum.quantity.to_string(), sum.amount))
        .collect();
    assert_eq!(sums, [("4".to_owned(), 40), ("7".to_owned(), 450)]);
}

#[test]
fn totals_follow_the_kinds_and_never_wrap() {
    let lines = [
        line(LineKind::Usage, 1, 1_000),
        line(LineKind::Discount, 1, -100),
        line(LineKind::Credit, 1, -200),
        line(LineKind::Tax, 1, 140),
    ];
    let totals = Totals::of(&lines).unwrap();
    assert_eq!(
        totals,
        Totals {
            subtotal: 1_000,
            discount: 100,
            credits: 200,
            tax: 140,
            total: 840
        }
    );
    assert!(Totals::of(&[line(LineKind::Usage, 1, i64::MAX), line(LineKind::Usage, 1, 1)]).is_err());
}

#[test]
fn only_named_steps_are_legal() {
    use InvoiceStatus::{Open, Paid, Uncollectible, Void};
    let steps = [InvoiceStep::Pay, InvoiceStep::Void, InvoiceStep::Uncollectible];
    let mut legal = Vec::new();
    for from in InvoiceStatus::ALL {
        assert_eq!(InvoiceStatus::parse(from.as_str()), Some(from));
        for step in steps {
            match from.after(step) {
                Ok(to) => legal.push((from, to)),
                Err(problem) => assert_eq!(problem.code, Code::IllegalTransition),
            }
        }
    }
    assert_eq!(
        legal,
        [
            (Open, Paid),
            (Open, Void),
            (Open, Uncollectible),
            (Uncollectible, Paid),
            (Uncollectible, Void)
        ]
    );
}

#[test]
fn the_view_is_the_contracts_shape() {
    let view = serde_json::to_value(InvoiceView::from(&invoice())).unwrap();
    assert_eq!(view["number"], "INV-000007");
    assert_eq!(view["status"], "open");
    assert_eq!(view["total"], "6.00");
    assert_eq!(view["amount_due"], "6.00");
    assert_eq!(view["watermark"], "3,9");
    assert_eq!(view["lines"][0]["quantity"], "10");
    assert_eq!(view["lines"][0]["amount"], "5.00");
    assert_eq!(view["lines"][1]["kind"], "minimum");
    assert_eq!(view["period"]["end"], "2026-02-01T00:00:00Z");
}

#[test]
fn a_history_says_the_status_and_is_sealed() {
    let at = |us| Timestamp::from_micros_clamped(us);
    let mut history = Vec::new();
    for (us, status) in [
        (1, InvoiceStatus::Open),
        (2, InvoiceStatus::Uncollectible),
        (3, InvoiceStatus::Paid),
    ] {
        let next = StatusEntry::next("a", &history, status, at(us));
        history.push(next);
    }
    let with = |id: &str, status| Invoice {
        id: id.to_owned(),
        status,
        ..invoice()
    };
    let paid = with("a", InvoiceStatus::Paid);
    assert_eq!(compare_history(&paid, &history), None);
    assert!(compare_history(&with("b", InvoiceStatus::Paid), &history).is_some());
    assert!(compare_history(&with("a", InvoiceStatus::Void), &history).is_some());
    assert!(
        compare_history(&paid, &history[..2]).is_some() && compare_history(&paid, &history[1..]).is_some()
    );
    assert!(compare_history(&paid, &[]).is_some());
    // From before histories were kept: only the first entry may be without a seal.
    history[0].hash.clear();
    assert!(compare_history(&paid, &history).is_some());
    let mut later = vec![history[0].clone()];
    later.push(StatusEntry::next("a", &later, InvoiceStatus::Paid, at(9)));
    assert_eq!(compare_history(&paid, &later), None);
    later[1].hash.clear();
    assert!(compare_history(&paid, &later).is_some());
}
