//! Whether what is declared makes sense beside the rest of the catalog.

use std::collections::BTreeSet;

use super::{AddOn, Catalog, Entitlement, Feature, FeatureKind, KEY_RULE, Limit, LimitMode, Plan, is_key};
use crate::limits::{
    ENTITLEMENT_LIMITS_MAX, PLAN_ENTITLEMENTS_MAX, PLAN_PRICES_MAX, PLAN_SPAN_MAX, TEXT_CHARS_MAX,
};
use crate::money::Currency;
use crate::problem::{Code, FieldError, Problem};
use crate::rating::{Price, PriceContext};

/// Field errors on their way to a [`Problem`]. Pointers are relative to what is checked.
#[derive(Debug, Default)]
pub struct Findings(Vec<FieldError>);

impl Findings {
    /// Something is wrong with the field at `pointer`.
    pub fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.0.push(FieldError {
            pointer: pointer.into(),
            detail: detail.into(),
        });
    }

    /// Takes over findings whose pointers are relative to `at`.
    pub fn under(&mut self, at: &str, findings: impl IntoIterator<Item = FieldError>) {
        self.0.extend(findings.into_iter().map(|found| FieldError {
            pointer: format!("{at}{}", found.pointer),
            detail: found.detail,
        }));
    }

    /// What was found.
    pub(crate) fn into_errors(self) -> Vec<FieldError> {
        self.0
    }

    /// An error unless nothing was found.
    pub fn into_result(self) -> Result<(), Problem> {
        let Some(first) = self.0.first() else {
            return Ok(());
        };
        let detail = format!("{} {}", first.pointer, first.detail);
        Err(Problem {
            fields: self.0,
            ..Problem::new(Code::Invalid, detail)
        })
    }

    /// Checks a key.
    pub fn key(&mut self, pointer: &str, key: &str) {
        if !is_key(key) {
            self.add(pointer, KEY_RULE);
        }
    }

    /// Checks a text for people.
    pub fn text(&mut self, pointer: &str, text: &str) {
        if text.chars().count() > TEXT_CHARS_MAX || text.chars().any(char::is_control) {
            self.add(
                pointer,
                format!("must be at most {TEXT_CHARS_MAX} characters, none of them a control"),
            );
        }
    }

    fn at_most(&mut self, pointer: &str, count: usize, max: usize) {
        if count > max {
            self.add(pointer, format!("has {count} entries, more than {max}"));
        }
    }
}

impl Feature {
    /// What is wrong with the feature in `catalog`.
    pub fn check(&self, catalog: &Catalog) -> Findings {
        let mut findings = Findings::default();
        findings.key("/key", &self.key);
        findings.text("/name", &self.name);
        match (&self.meter, self.kind) {
            (None, FeatureKind::Metered) => findings.add("/meter", "is needed by a metered feature"),
            (Some(meter), FeatureKind::Metered) if !catalog.meters.contains_key(meter) => {
                findings.add("/meter", format!("there is no meter \"{meter}\""));
            }
            (Some(_), FeatureKind::Boolean | FeatureKind::Static) => {
                findings.add("/meter", "belongs to metered features only");
            }
            _ => {}
        }
        findings
    }
}

impl Entitlement {
    /// What is wrong with the entitlement in `catalog`.
    pub fn check(&self, catalog: &Catalog) -> Findings {
        let mut findings = Findings::default();
        let Some(feature) = catalog.features.get(&self.feature) else {
            findings.add("/feature", format!("there is no feature \"{}\"", self.feature));
            return findings;
        };
        if feature.kind != FeatureKind::Metered && !self.limits.is_empty() {
            findings.add("/limits", "belong to metered features only");
        }
        match (&self.value, feature.kind) {
            (None, FeatureKind::Static) => findings.add("/value", "is needed for a static feature"),
            (Some(value), FeatureKind::Static) => findings.text("/value", value),
            (Some(_), _) => findings.add("/value", "belongs to static features only"),
            (None, _) => {}
        }
        findings.at_most("/limits", self.limits.len(), ENTITLEMENT_LIMITS_MAX);
        let mut seen = Vec::new();
        for (index, limit) in self.limits.iter().enumerate() {
            let at = format!("/limits/{index}");
            findings.under(&at, limit.check().into_errors());
            if seen.contains(&(limit.period, limit.mode)) {
                findings.add(at, "has the period and mode of an earlier limit");
            }
            seen.push((limit.period, limit.mode));
        }
        findings
    }
}

impl Limit {
    fn check(&self) -> Findings {
        let mut findings = Findings::default();
        if self.limit.is_negative() {
            findings.add("/limit", "must not be negative");
        }
        match (self.grace_percent, self.mode) {
            (Some(grace), LimitMode::Soft) if grace.is_negative() => {
                findings.add("/grace_percent", "must not be negative");
            }
            (Some(_), LimitMode::Hard | LimitMode::Overage) => {
                findings.add("/grace_percent", "belongs to the mode soft only");
            }
            _ => {}
        }
        findings
    }
}

impl Plan {
    /// What is wrong with the plan in `catalog`.
    pub fn check(&self, catalog: &Catalog) -> Findings {
        let mut findings = Findings::default();
        findings.key("/key", &self.key);
        findings.text("/name", &self.name);
        if !(1..=PLAN_SPAN_MAX).contains(&self.interval_count) {
            findings.add("/interval_count", format!("must be 1 to {PLAN_SPAN_MAX}"));
        }
        if self.trial_days > PLAN_SPAN_MAX {
            findings.add("/trial_days", format!("must be at most {PLAN_SPAN_MAX}"));
        }
        check_prices("/prices", &self.prices, self.currency, catalog, &mut findings);
        for (code, prices) in &self.prices_by_currency {
            let at = format!("/prices_by_currency/{code}");
            match Currency::parse(code) {
                Ok(currency) if currency == self.currency => {
                    findings.add(at, "is the plan's own currency: use prices");
                }
                Ok(currency) => check_prices(&at, prices, currency, catalog, &mut findings),
                Err(error) => findings.add(at, error.to_string()),
            }
        }
        check_entitlements(&self.entitlements, catalog, &mut findings);
        if let Some(amount) = &self.minimum_commitment {
            check_amount("/minimum_commitment", amount, self.currency, &mut findings);
        }
        if self.credits.is_some() {
            let detail = "cannot be given by a plan yet, they come with a later release: leave them out";
            findings.add("/credits", detail);
        }
        findings
    }

    /// The plan with its defaults written out, so that equal plans are equal.
    #[must_use]
    pub(crate) fn normalized(mut self) -> Self {
        self.version = 0;
        default_name(&mut self.name, &self.key);
        if let Some(amount) = &mut self.minimum_commitment {
            normalize_amount(amount, self.currency);
        }
        if let Some(credits) = &mut self.credits {
            normalize_amount(&mut credits.amount, self.currency);
        }
        self
    }
}

impl AddOn {
    /// What is wrong with the add-on in `catalog`.
    pub fn check(&self, catalog: &Catalog) -> Findings {
        let mut findings = Findings::default();
        findings.key("/key", &self.key);
        findings.text("/name", &self.name);
        check_prices("/prices", &self.prices, self.currency, catalog, &mut findings);
        check_entitlements(&self.entitlements, catalog, &mut findings);
        findings
    }

    /// The add-on with its defaults written out, so that equal add-ons are equal.
    #[must_use]
    pub(crate) fn normalized(mut self) -> Self {
        self.version = 0;
        default_name(&mut self.name, &self.key);
        self
    }
}

impl Feature {
    /// The feature with its defaults written out, so that equal features are equal.
    #[must_use]
    pub(crate) fn normalized(mut self) -> Self {
        default_name(&mut self.name, &self.key);
        self
    }
}

fn default_name(name: &mut String, key: &str) {
    if name.is_empty() {
        key.clone_into(name);
    }
}

fn normalize_amount(amount: &mut String, currency: Currency) {
    if let Ok(minor) = currency.parse_amount(amount) {
        *amount = currency.format_amount(minor);
    }
}

fn check_amount(pointer: &str, amount: &str, currency: Currency, findings: &mut Findings) {
    match currency.parse_amount(amount) {
        Ok(minor) if minor < 0 => findings.add(pointer, "must not be negative"),
        Ok(_) => {}
        Err(error) => findings.add(pointer, error.to_string()),
    }
}

fn check_prices(at: &str, prices: &[Price], currency: Currency, catalog: &Catalog, findings: &mut Findings) {
    findings.at_most(at, prices.len(), PLAN_PRICES_MAX);
    let context = PriceContext::catalog(currency, &catalog.meters);
    let mut keys = BTreeSet::new();
    for (index, price) in prices.iter().enumerate() {
        let at = format!("{at}/{index}");
        findings.under(&at, price.check(&context));
        if !keys.insert(&price.key) {
            findings.add(format!("{at}/key"), "is the key of an earlier price");
        }
    }
}

fn check_entitlements(entitlements: &[Entitlement], catalog: &Catalog, findings: &mut Findings) {
    findings.at_most("/entitlements", entitlements.len(), PLAN_ENTITLEMENTS_MAX);
    let mut features = BTreeSet::new();
    for (index, entitlement) in entitlements.iter().enumerate() {
        let at = format!("/entitlements/{index}");
        findings.under(&at, entitlement.check(catalog).into_errors());
        if !features.insert(&entitlement.feature) {
            findings.add(format!("{at}/feature"), "has an entitlement already");
        }
    }
}
