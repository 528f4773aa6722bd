//! The page of an invoice.

use std::sync::LazyLock;

use minijinja::{Environment, context};
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{BillTo, Invoice, Line, Parties, number_text};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{TimeRange, Timestamp, Zone};

use crate::invoice::engine::BillingSync;

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut templates = Environment::new();
    // The name's ending turns escaping on. The template is part of the program; the page's test renders it.
    if let Err(error) = templates.add_template("invoice.html", include_str!("invoice.html")) {
        tracing::error!(%error, "the template of invoices is broken");
    }
    templates
});

/// The invoice as a page that prints on A4.
pub(super) fn page(billing: &BillingSync, tenant: TenantId, invoice: &Invoice) -> Result<String, Problem> {
    let subscription = billing
        .parts
        .directory
        .subscription(tenant, &invoice.subscription);
    let zone = subscription.and_then(|subscription| Zone::parse(&subscription.timezone).ok());
    let zone = zone.unwrap_or(Zone::UTC);
    let unnamed = || Parties {
        bill_to: BillTo {
            name: invoice.customer.clone(),
            email: None,
        },
        ..Parties::default()
    };
    let parties = invoice.parties.clone().unwrap_or_else(unnamed);
    let amount = |minor: i64| invoice.currency.format_amount(minor);
    let lines: Vec<_> = invoice
        .lines
        .iter()
        .map(|line| line_context(line, invoice, &zone))
        .collect();
    let totals = &invoice.totals;
    let context = context! {
        seller => parties.seller,
        customer => parties.bill_to.name,
        email => parties.bill_to.email,
        key => &invoice.customer,
        id => &invoice.id,
        number => invoice.number.map(number_text),
        status => invoice.status.as_str(),
        currency => invoice.currency.to_string(),
        issued => invoice.finalized.map(|at| zone.date(at)),
        period => period(invoice.period, &zone),
        zone => zone.name(),
        lines => lines,
        subtotal => amount(totals.subtotal),
        discount => (totals.discount != 0).then(|| amount(totals.discount)),
        credits => (totals.credits != 0).then(|| amount(totals.credits)),
        tax => (totals.tax != 0).then(|| amount(totals.tax)),
        total => amount(totals.total),
        due => amount(invoice.amount_due()),
        hash => &invoice.hash,
        watermark => invoice.watermark.as_ref().map(ToString::to_string),
        catalog_version => invoice.catalog_version,
    };
    let failed = |error: minijinja::Error| {
        Problem::new(
            Code::Internal,
            format!("the page of an invoice cannot be made: {error}"),
        )
    };
    TEMPLATES
        .get_template("invoice.html")
        .and_then(|template| template.render(context))
        .map_err(failed)
}

fn line_context(line: &Line, invoice: &Invoice, zone: &Zone) -> minijinja::Value {
    context! {
        description => &line.description,
        kind => line.kind.as_str(),
        period => period(line.period, zone),
        quantity => line.quantity.to_string(),
        amount => invoice.currency.format_amount(line.amount),
    }
}

/// The first and the last day of a period, in its zone; one day for an empty period.
fn period(range: TimeRange, zone: &Zone) -> String {
    let last = range.end.max(range.start.plus_micros(1)).plus_micros(-1);
    let days = |at: Timestamp| zone.date(at);
    let (from, to) = (days(range.start), days(last));
    if from == to {
        from
    } else {
        format!("{from} – {to}")
    }
}
