use std::collections::BTreeSet;

use axum::http::Method;
use turnpike_domain::identity::Scope;
use turnpike_domain::problem::{Code, Problem};
use utoipa::openapi::path::{Operation, PathItem};

/// Which scopes open which operation of a path, as the document of the API says: checked before a handler, or the reading of a
/// body, begins. The handlers check again what they need.
#[derive(Debug, Default)]
pub(crate) struct ScopeTable(Vec<(Method, BTreeSet<Scope>)>);

impl ScopeTable {
    /// Reads a path of the document. An operation that names no scope needs `admin`, so that forgetting one opens nothing.
    pub(crate) fn of(item: &PathItem) -> Self {
        let needed = operations(item).map(|(method, operation)| (method, scopes(operation)));
        Self(needed.collect())
    }

    /// An error when none of `held` opens `method`. What the document does not have is let pass: there is no handler
    /// behind it, only 404 and 405.
    pub(crate) fn require(&self, method: &Method, held: &BTreeSet<Scope>) -> Result<(), Problem> {
        let found = self.0.iter().find(|(known, _)| known == answering(method));
        let Some((_, needed)) = found else {
            return Ok(());
        };
        if held.contains(&Scope::Admin) || !held.is_disjoint(needed) {
            return Ok(());
        }
        let names: Vec<String> = needed
            .iter()
            .map(|scope| serde_json::to_string(scope).unwrap_or_default())
            .collect();
        Err(Problem::new(
            Code::Forbidden,
            format!("this key lacks the scope {}", names.join(" or ")),
        ))
    }
}

/// The method whose handler answers: the router answers HEAD with that of GET.
pub(crate) fn answering(method: &Method) -> &Method {
    if *method == Method::HEAD {
        &Method::GET
    } else {
        method
    }
}

pub(crate) fn operations(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    let all = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
        (Method::PATCH, &item.patch),
    ];
    all.into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

fn scopes(operation: &Operation) -> BTreeSet<Scope> {
    let security = serde_json::to_value(&operation.security).unwrap_or_default();
    let named = security
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|one| one["api_key"].as_array().cloned().unwrap_or_default());
    let named: BTreeSet<Scope> = named
        .filter_map(|scope| serde_json::from_value(scope).ok())
        .collect();
    if named.is_empty() {
        [Scope::Admin].into()
    } else {
        named
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use utoipa::openapi::OpenApi;

    use super::*;

    /// A document of these operations: path, method, scopes.
    fn document() -> OpenApi {
        let operation = |scopes: &[&str]| json!({"responses": {}, "security": [{"api_key": scopes}]});
        let document = json!({
            "openapi": "3.1.0",
            "info": {"title": "t", "version": "1"},
            "paths": {
                "/a": {"get": operation(&["read"]), "post": operation(&["check", "billing"])},
                "/b": {"get": {"responses": {}}},
            },
        });
        serde_json::from_value(document).unwrap()
    }

    fn opens(route: &str, method: &Method, held: &[Scope]) -> bool {
        let table = ScopeTable::of(&document().paths.paths[route]);
        table.require(method, &held.iter().copied().collect()).is_ok()
    }

    #[test]
    fn the_document_decides() {
        assert!(opens("/a", &Method::GET, &[Scope::Read]));
        assert!(opens("/a", &Method::HEAD, &[Scope::Read]));
        assert!(!opens("/a", &Method::GET, &[Scope::Check, Scope::Ingest]));
        assert!(!opens("/a", &Method::HEAD, &[Scope::Check]));
        assert!(opens("/a", &Method::POST, &[Scope::Billing]));
        assert!(opens("/a", &Method::POST, &[Scope::Admin]));
        assert!(!opens("/a", &Method::POST, &[]));
    }

    #[test]
    fn forgetting_a_scope_opens_nothing() {
        assert!(!opens(
            "/b",
            &Method::GET,
            &[Scope::Read, Scope::Check, Scope::Billing, Scope::Ingest]
        ));
        assert!(opens("/b", &Method::GET, &[Scope::Admin]));
    }
}
