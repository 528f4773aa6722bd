use std::collections::BTreeMap;

use axum::Json;
use serde::{Deserialize, Serialize};
use turnpike_domain::identity::Scope;
use turnpike_domain::limits::PREVIEW_EVENTS_MAX;
use turnpike_domain::money::{Currency, Money};
use turnpike_domain::problem::{Code, FieldError, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::rating::{Matrix, Model, Price, PriceContext, Rated, RatedLine, Usage, rate, rate_step};
use turnpike_http::{Caller, JsonBody, ProblemBody, Reply, SentDecimal};

/// A price, and the usage to apply it to.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PricePreviewRequest {
    /// The currency of the price.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$")]
    currency: Currency,
    /// The price; it needs no `key` and no `meter`.
    price: Price,
    /// How much was used. Not for `percentage`.
    #[serde(default)]
    #[schema(value_type = Option<SentDecimal>)]
    quantity: Option<Quantity>,
    /// For `percentage` and `graduated_percentage`: each event's amount, in order.
    #[serde(default)]
    #[schema(value_type = Option<Vec<SentDecimal>>)]
    amounts: Option<Vec<Quantity>>,
    /// For a bill in steps: what was billed before; `quantity` comes on top. 0: nothing was billed.
    #[serde(default)]
    #[schema(value_type = Option<SentDecimal>)]
    already_billed_quantity: Option<Quantity>,
    /// For `matrix`: the dimension values of `quantity`; one that is left out is empty.
    #[serde(default)]
    dimensions: BTreeMap<String, String>,
}

/// What it costs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct PricePreview {
    /// The exact amount.
    unrounded: String,
    /// The amount, rounded half up to the currency's minor unit.
    #[schema(value_type = super::fee::MoneyShape)]
    amount: Money,
    /// What it is made of.
    lines: Vec<PreviewLine>,
}

/// One part: `quantity` × `unit_amount` + `flat_amount`, within the bounds of an event.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct PreviewLine {
    /// How much; of packages, how many.
    quantity: String,
    /// The price of one.
    unit_amount: String,
    /// What is added once.
    flat_amount: String,
    /// The part's exact amount.
    amount: String,
}

impl From<&RatedLine> for PreviewLine {
    fn from(line: &RatedLine) -> Self {
        Self {
            quantity: line.quantity.to_string(),
            unit_amount: line.unit_amount.to_string(),
            flat_amount: line.flat_amount.to_string(),
            amount: line.amount.to_string(),
        }
    }
}

/// Applies a price to usage. Nothing is billed or kept.
#[utoipa::path(
    post, path = "/v1/price/preview", tag = "Billing", operation_id = "preview_price",
    request_body = PricePreviewRequest,
    responses(
        (status = 200, description = "What it costs", body = PricePreview),
        (status = 422, description = "The price or the usage is invalid", body = ProblemBody),
    ),
    security(("api_key" = ["read"])),
)]
pub(super) async fn preview_price(
    caller: Caller,
    JsonBody(request): JsonBody<PricePreviewRequest>,
) -> Reply<Json<PricePreview>> {
    caller.require(Scope::Read)?;
    let rated = request.rate()?;
    Ok(Json(PricePreview {
        unrounded: rated.unrounded.to_string(),
        amount: Money::new(rated.minor, request.currency),
        lines: rated.lines.iter().map(PreviewLine::from).collect(),
    }))
}

fn both(already: Quantity, new: Quantity) -> Result<Quantity, Problem> {
    let total = already.checked_add(new);
    total.ok_or_else(|| Problem::new(Code::Overflow, "the quantity is too large"))
}

impl PricePreviewRequest {
    fn rate(&self) -> Result<Rated, Problem> {
        self.check()?;
        let already = self.already_billed_quantity.unwrap_or_default();
        if already.is_zero() {
            return Ok(rate(&self.price, &self.usage()?, self.currency)?);
        }
        let (before, now) = match self.usage()? {
            Usage::Events(_) => {
                let detail = "stands beside quantity only: each event of amounts is charged by itself";
                return Err(Problem::invalid("/already_billed_quantity", detail));
            }
            Usage::Total(new) => (Usage::Total(already), Usage::Total(both(already, new)?)),
            Usage::Groups(new) => {
                let before = new.iter().map(|(group, _)| (group.clone(), already));
                let now = new
                    .iter()
                    .map(|(group, new)| Ok((group.clone(), both(already, *new)?)));
                (
                    Usage::Groups(before.collect()),
                    Usage::Groups(now.collect::<Result<_, Problem>>()?),
                )
            }
        };
        Ok(rate_step(&self.price, &before, &now, self.currency)?)
    }

    fn check(&self) -> Result<(), Problem> {
        let mut errors = self.price.check(&PriceContext::preview(self.currency));
        for error in &mut errors {
            error.pointer.insert_str(0, "/price");
        }
        let mut refuse = |pointer: &str, detail: String| {
            errors.push(FieldError {
                pointer: pointer.to_owned(),
                detail,
            });
        };
        for (pointer, quantity) in [
            ("/quantity", self.quantity),
            ("/already_billed_quantity", self.already_billed_quantity),
        ] {
            if quantity.is_some_and(Quantity::is_negative) {
                refuse(pointer, "must not be negative".to_owned());
            }
        }
        let amounts = self.amounts.as_deref().unwrap_or_default();
        if amounts.len() > PREVIEW_EVENTS_MAX {
            refuse("/amounts", format!("must be at most {PREVIEW_EVENTS_MAX}"));
        }
        if let Some(at) = amounts.iter().position(|amount| amount.is_negative()) {
            refuse(&format!("/amounts/{at}"), "must not be negative".to_owned());
        }
        match errors.first() {
            None => Ok(()),
            Some(first) => {
                let problem = Problem::invalid(first.pointer.clone(), first.detail.clone());
                Err(Problem {
                    fields: errors,
                    ..problem
                })
            }
        }
    }

    fn usage(&self) -> Result<Usage, Problem> {
        let takes_amounts = matches!(
            self.price.model,
            Model::Percentage(_) | Model::GraduatedPercentage(_)
        );
        match (&self.price.model, self.quantity, &self.amounts) {
            (_, Some(_), Some(_)) => Err(Problem::invalid("/amounts", "cannot stand beside quantity")),
            (_, None, Some(amounts)) if takes_amounts => Ok(Usage::Events(amounts.clone())),
            (_, _, Some(_)) => Err(Problem::invalid(
                "/amounts",
                "is only for percentage prices; send quantity",
            )),
            (Model::Percentage(_), _, None) => Err(Problem::invalid(
                "/amounts",
                "is needed: the amount of each event",
            )),
            (Model::Flat(_), quantity, None) => Ok(Usage::Total(quantity.unwrap_or_default())),
            (_, None, None) => Err(Problem::invalid("/quantity", "is needed")),
            (Model::Matrix(matrix), Some(quantity), None) => self.combination(matrix, quantity),
            (_, Some(quantity), None) => Ok(Usage::Total(quantity)),
        }
    }

    fn combination(&self, matrix: &Matrix, quantity: Quantity) -> Result<Usage, Problem> {
        if let Some(unknown) = self
            .dimensions
            .keys()
            .find(|name| !matrix.dimensions.contains(name))
        {
            return Err(Problem::invalid(
                "/dimensions",
                format!("names \"{unknown}\", which is no dimension of the price"),
            ));
        }
        let value = |name: &String| self.dimensions.get(name).cloned().unwrap_or_default();
        Ok(Usage::Groups(vec![(
            matrix.dimensions.iter().map(value).collect(),
            quantity,
        )]))
    }
}
