//! What the store of invoices and billing runs promises. The store is empty and knows the default tenant.

use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{
    Basis, BillTo, BillingRun, Counted, Invoice, InvoiceStatus, InvoiceStep, Line, LineKind, Parties,
    RunStatus, Totals,
};
use turnpike_domain::money::Currency;
use turnpike_domain::port::billing::{
    BilledFilter, BillingStore, Boundary, Closing, Closings, InvoiceFilter,
};
use turnpike_domain::port::control::PageAfter;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::rating::{Model, PerUnit, Price};
use turnpike_domain::record::{Position, Watermark};
use turnpike_domain::time::{TimeRange, Timestamp};

use super::control::change;

const TENANT: TenantId = TenantId::DEFAULT;
const OTHER: TenantId = TenantId(77);
const MONTH_MINUTES: u32 = 43_200;

fn period(month: u32) -> TimeRange {
    let at = |month: u32| Timestamp::from_minute(28_000_000 + month * MONTH_MINUTES);
    TimeRange::new(at(month), at(month + 1))
}

fn line(amount: i64, period: TimeRange) -> Line {
    let unit = PerUnit {
        unit_amount: turnpike_domain::rating::Decimal::ZERO,
        included: Quantity::ZERO,
    };
    let line = Line {
        kind: LineKind::Usage,
        source: "plan/pro@1".to_owned(),
        price: "tokens".to_owned(),
        meter: Some("tokens".to_owned()),
        description: "Tokens".to_owned(),
        quantity: Quantity::from_units(amount),
        amount,
        period,
        basis: Basis::Usage {
            price: Price::of(Model::PerUnit(unit)),
            counted: Counted {
                subjects: vec!["acme".to_owned()],
                below: Vec::new(),
            },
        },
        hash: String::new(),
    };
    line.sealed()
}

/// A draft of `subscription` for a month, with one line.
fn draft(id: &str, subscription: &str, month: u32, amount: i64) -> Result<Invoice, Problem> {
    let period = period(month);
    let lines = vec![line(amount, period)];
    Ok(Invoice {
        id: id.to_owned(),
        number: None,
        customer: "acme".to_owned(),
        parties: Some(Parties {
            seller: "Lab".to_owned(),
            bill_to: BillTo {
                name: "Acme".to_owned(),
                email: None,
            },
        }),
        subscription: subscription.to_owned(),
        status: InvoiceStatus::Draft,
        currency: Currency::USD,
        period,
        round: 0,
        totals: Totals::of(&lines)?,
        lines,
        watermark: Some(Watermark(vec![Position(9), Position(4)])),
        catalog_version: 3,
        previous_hash: String::new(),
        hash: String::new(),
        created: period.end,
        locks_at: period.end,
        finalized: None,
    })
}

/// Closes one boundary; answers what stands there then.
async fn closed(store: &dyn BillingStore, closing: Closing) -> Result<Invoice, Problem> {
    let (Closing::Draft(invoice) | Closing::Locked(invoice)) = &closing else {
        return Err(Problem::not_found("invoice of an empty period", ""));
    };
    let boundary = Boundary {
        subscription: invoice.subscription.clone(),
        at: invoice.boundary(),
        round: invoice.round,
    };
    let closings = Closings {
        closings: vec![closing],
        ..Closings::default()
    };
    store.close(change(TENANT, None), closings).await?;
    let found = store.invoices_of(TENANT, vec![boundary]).await?;
    let none = || Problem::not_found("invoice", "");
    found.into_iter().next().flatten().ok_or_else(none)
}

async fn made_final(store: &dyn BillingStore, invoice: Invoice) -> Result<Invoice, Problem> {
    let id = closed(store, Closing::Locked(invoice)).await?.id;
    store.finish(change(TENANT, None), id.clone()).await?;
    let found = store.invoice(TENANT, id.clone()).await?;
    found.ok_or_else(|| Problem::not_found("invoice", &id))
}

/// A draft is replaced and keeps its id; a lock is taken once; a final invoice reads back as it was written.
pub async fn a_period_has_one_invoice(store: &dyn BillingStore) -> Result<(), Problem> {
    let first = closed(store, Closing::Draft(draft("a", "s", 0, 100)?)).await?;
    assert_eq!(
        (first.status, first.watermark.as_ref()),
        (InvoiceStatus::Draft, None)
    );
    let second = closed(store, Closing::Draft(draft("b", "s", 0, 250)?)).await?;
    assert_eq!(
        (second.id.as_str(), second.totals.total, second.lines.len()),
        ("a", 250, 1)
    );
    assert_eq!(store.closed_until(TENANT, vec!["s".to_owned()]).await?, [None]);
    let locked = closed(store, Closing::Locked(draft("c", "s", 0, 300)?)).await?;
    assert_eq!(
        (locked.id.as_str(), locked.status),
        ("a", InvoiceStatus::Finalizing)
    );
    assert_eq!(store.finalizing(TENANT).await?, ["a"]);
    let again = closed(store, Closing::Locked(draft("d", "s", 0, 999)?)).await?;
    assert_eq!(again, locked, "a lock is taken once");
    let asked = vec!["s".to_owned(), "none".to_owned()];
    assert_eq!(
        store.closed_until(TENANT, asked).await?,
        [Some(period(0).end), None]
    );
    store.finish(change(TENANT, None), "a".to_owned()).await?;
    let last = store.invoice(TENANT, "a".to_owned()).await?;
    let Some(last) = last else {
        return Err(Problem::not_found("invoice", "a"));
    };
    assert_eq!(
        (last.number, last.status, last.hash == last.seal()),
        (Some(1), InvoiceStatus::Open, true)
    );
    assert_eq!((&last.lines, &last.watermark), (&locked.lines, &locked.watermark));
    assert_eq!(closed(store, Closing::Draft(draft("e", "s", 0, 1)?)).await?, last);
    assert_eq!(
        store.invoice(OTHER, "a".to_owned()).await?,
        None,
        "tenants never meet"
    );
    Ok(())
}

/// Numbers go up by one in the order of finishing, each invoice holds the hash of the one before, and billed lines are
/// those of locked invoices.
pub async fn numbers_have_no_gaps(store: &dyn BillingStore) -> Result<(), Problem> {
    let mut hash = String::new();
    for month in 0..5 {
        let invoice = made_final(store, draft(&format!("i{month}"), "s", month, 10)?).await?;
        assert_eq!(
            (invoice.number, &invoice.previous_hash),
            (Some(u64::from(month) + 1), &hash)
        );
        hash = invoice.hash;
    }
    closed(store, Closing::Draft(draft("i5", "s", 5, 10)?)).await?;
    let filter = |number_below| BilledFilter {
        subscription: "s".to_owned(),
        ends_after: period(0).end,
        number_below,
    };
    assert_eq!(store.billed_lines(TENANT, filter(None)).await??.len(), 4);
    assert_eq!(store.billed_lines(TENANT, filter(Some(3))).await??.len(), 1);
    let page = |after: Option<&str>| PageAfter {
        after: after.map(str::to_owned),
        rows: 4,
    };
    let ids = async |filter: &InvoiceFilter, tenant, page| -> Result<Vec<String>, Problem> {
        let found = store.invoices(tenant, filter.clone(), page).await?;
        found.into_iter().map(|invoice| Ok(invoice?.id)).collect()
    };
    let all = InvoiceFilter::default();
    assert_eq!(ids(&all, TENANT, page(None)).await?, ["i5", "i4", "i3", "i2"]);
    assert_eq!(ids(&all, TENANT, page(Some("i2"))).await?, ["i1", "i0"]);
    assert_eq!(ids(&all, OTHER, page(None)).await?, Vec::<String>::new());
    let open = InvoiceFilter {
        status: Some(InvoiceStatus::Draft),
        ..InvoiceFilter::default()
    };
    assert_eq!(ids(&open, TENANT, page(None)).await?, ["i5"]);
    Ok(())
}

/// Many periods are closed at once, and their invoices numbered in the order asked; what is not locked is left out.
pub async fn many_are_closed_together(store: &dyn BillingStore) -> Result<(), Problem> {
    let subscriptions = ["s0", "s1", "s2", "s3"];
    let empty = Closing::Empty {
        subscription: "s3".to_owned(),
        period: period(0),
    };
    let closings = vec![
        Closing::Locked(draft("i0", "s0", 0, 10)?),
        Closing::Draft(draft("i1", "s1", 0, 20)?),
        Closing::Locked(draft("i2", "s2", 0, 30)?),
        empty,
    ];
    let closings = Closings {
        closings,
        ..Closings::default()
    };
    let changed = store.close(change(TENANT, None), closings).await?;
    assert_eq!(changed, Some(Vec::new()), "the directory knows none of them");
    let asked = subscriptions.map(str::to_owned).to_vec();
    let (end, until) = (period(0).end, store.closed_until(TENANT, asked).await?);
    assert_eq!(until, [Some(end), None, Some(end), Some(end)]);
    let ids = ["i2", "i1", "none", "i0"].map(str::to_owned).to_vec();
    assert_eq!(store.finish_all(change(TENANT, None), ids.clone()).await?, 2);
    assert_eq!(store.finish_all(change(TENANT, None), ids).await?, 0, "a repeat");
    let boundary = |subscription: &str| Boundary {
        subscription: subscription.to_owned(),
        at: end,
        round: 0,
    };
    let found = store
        .invoices_of(TENANT, subscriptions.map(boundary).to_vec())
        .await?;
    let said = |at: usize| {
        let invoice = found[at].as_ref();
        invoice.map(|one| (one.number, one.status, one.lines.len()))
    };
    assert_eq!(said(0), Some((Some(2), InvoiceStatus::Open, 1)));
    assert_eq!(said(1), Some((None, InvoiceStatus::Draft, 1)));
    assert_eq!(said(2), Some((Some(1), InvoiceStatus::Open, 1)));
    assert_eq!(said(3), None);
    let (first, second) = (&found[2], &found[0]);
    let hash = first.as_ref().map(|invoice| invoice.hash.clone());
    let chained = second.as_ref().map(|invoice| invoice.previous_hash.clone());
    assert!(hash == chained && hash.is_some_and(|hash| !hash.is_empty()));
    assert_eq!(store.finalizing(TENANT).await?, Vec::<String>::new());
    Ok(())
}

/// Legal steps are taken, others are refused and change nothing, and a repeat with its idempotency key answers as first.
pub async fn steps_are_legal_and_answered_once(store: &dyn BillingStore) -> Result<(), Problem> {
    let invoice = made_final(store, draft("a", "s", 0, 10)?).await?;
    let pay = || {
        store.step(
            change(TENANT, Some(("k", "pay"))),
            "a".to_owned(),
            InvoiceStep::Pay,
        )
    };
    let first = pay().await?;
    let again = pay().await?;
    assert_eq!((again.body, again.repeated), (first.body, true));
    let void = store
        .step(change(TENANT, None), "a".to_owned(), InvoiceStep::Void)
        .await;
    assert_eq!(void.map_err(|problem| problem.code), Err(Code::IllegalTransition));
    let other = store
        .step(
            change(TENANT, Some(("k", "void"))),
            "a".to_owned(),
            InvoiceStep::Void,
        )
        .await;
    assert_eq!(
        other.map_err(|problem| problem.code),
        Err(Code::IdempotencyConflict)
    );
    let paid = store.invoice(TENANT, "a".to_owned()).await?;
    assert_eq!(
        paid,
        Some(Invoice {
            status: InvoiceStatus::Paid,
            ..invoice
        })
    );
    Ok(())
}

/// Runs wait in the order of their ids, the same `period_end` waits once, and what is saved is read back.
pub async fn runs_wait_one_behind_the_other(store: &dyn BillingStore) -> Result<(), Problem> {
    let (one, two) = (period(0).end, period(1).end);
    for (id, end) in [("r1", one), ("r2", two), ("r3", one)] {
        let run = BillingRun::queued(id.to_owned(), end, two);
        let answer = store.begin_run(change(TENANT, None), run).await?;
        let expected = if id == "r3" { "r1" } else { id };
        assert_eq!((answer.status, answer.body["id"].as_str()), (202, Some(expected)));
    }
    for id in ["r1", "r2"] {
        let next = store.next_run(TENANT).await?;
        let Some(mut run) = next else {
            return Err(Problem::not_found("run", id));
        };
        assert_eq!(run.id, id);
        run.status = RunStatus::Done;
        run.cursor = Some("s".to_owned());
        store.save_run(TENANT, run.clone()).await?;
        assert_eq!(store.run(TENANT, id.to_owned()).await?, Some(run));
    }
    assert_eq!(store.next_run(TENANT).await?, None);
    assert_eq!(store.run(OTHER, "r1".to_owned()).await?, None);
    let newest = PageAfter { after: None, rows: 1 };
    assert_eq!(
        store
            .runs(TENANT, newest)
            .await?
            .first()
            .map(|run| run.id.clone())
            .as_deref(),
        Some("r2")
    );
    Ok(())
}
