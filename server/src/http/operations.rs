use std::borrow::Cow;
use std::collections::BTreeSet;

use axum::http::Method;
use percent_encoding::percent_decode_str;
use turnpike_domain::problem::{Code, Problem};
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Operation, ParameterIn, ParameterStyle, PathItem};

use super::scopes::{answering, operations};

/// What each operation of a path takes, as the document of the API says: the one place where a query parameter that nobody
/// reads, and a body where none belongs, are refused.
#[derive(Debug, Default)]
pub(crate) struct Operations(Vec<(Method, Takes)>);

/// What one operation takes.
#[derive(Debug, Default)]
pub(crate) struct Takes {
    /// Names of query parameters.
    plain: BTreeSet<String>,
    /// Names of query parameters that are written `name[key]`. Whether one is also read bare, its handler knows.
    keyed: BTreeSet<String>,
    /// Whether it has a body.
    pub(crate) body: bool,
}

impl Operations {
    /// Reads a path of the document.
    pub(crate) fn of(item: &PathItem) -> Self {
        let takes = operations(item).map(|(method, operation)| (method, Takes::of(operation)));
        Self(takes.collect())
    }

    /// What `method` takes; none for what has no handler.
    pub(crate) fn get(&self, method: &Method) -> Option<&Takes> {
        let found = self.0.iter().find(|(known, _)| known == answering(method));
        found.map(|(_, takes)| takes)
    }
}

impl Takes {
    fn of(operation: &Operation) -> Self {
        let mut takes = Self {
            body: operation.request_body.is_some(),
            ..Self::default()
        };
        for parameter in operation.parameters.iter().flatten() {
            // The document writes its parameters out.
            let RefOr::T(parameter) = parameter else { continue };
            if !matches!(parameter.parameter_in, ParameterIn::Query) {
                continue;
            }
            if matches!(parameter.style, Some(ParameterStyle::DeepObject)) {
                takes.keyed.insert(parameter.name.clone());
            } else {
                takes.plain.insert(parameter.name.clone());
            }
        }
        takes
    }

    /// An error that names the first parameter of `query` that is not taken, or says that it is no text.
    pub(crate) fn check_query(&self, query: Option<&str>) -> Result<(), Problem> {
        let query = query.unwrap_or("");
        if percent_decode_str(query).decode_utf8().is_err() {
            let detail = "the query string is not UTF-8 once its %-escapes are read";
            return Err(Problem::new(Code::InvalidRequest, detail));
        }
        let pairs = form_urlencoded::parse(query.as_bytes());
        for (name, _) in pairs.filter(|(name, value)| !(name.is_empty() && value.is_empty())) {
            if !self.knows(&name) {
                let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
                return Err(Problem::invalid(pointer, self.unknown()));
            }
        }
        Ok(())
    }

    fn knows(&self, name: &str) -> bool {
        let keyed = || {
            let (before, key) = name.strip_suffix(']')?.split_once('[')?;
            Some(!key.is_empty() && self.keyed.contains(before))
        };
        self.plain.contains(name) || self.keyed.contains(name) || keyed().unwrap_or(false)
    }

    fn unknown(&self) -> String {
        let keyed = self.keyed.iter().map(|name| Cow::Owned(format!("{name}[…]")));
        let plain = self.plain.iter().map(|name| Cow::Borrowed(name.as_str()));
        let known: Vec<_> = plain.chain(keyed).collect();
        if known.is_empty() {
            return "is no parameter of this call, which takes none".to_owned();
        }
        format!("is no parameter of this call, which takes {}", known.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use utoipa::openapi::OpenApi;

    use super::*;

    #[test]
    fn what_the_document_does_not_name_is_refused() {
        let parameter = |name: &str, place: &str| json!({"name": name, "in": place, "required": false, "schema": {"type": "string"}});
        let keyed = json!({"name": "filter", "in": "query", "required": false, "style": "deepObject", "schema": {"type": "object"}});
        let document: OpenApi = serde_json::from_value(json!({
            "openapi": "3.1.0", "info": {"title": "t", "version": "1"},
            "paths": {"/things": {
                "get": {"parameters": [parameter("limit", "query"), keyed, parameter("x-request-id", "header")], "responses": {}},
                "post": {"responses": {}},
            }},
        }))
        .unwrap();
        let operations = Operations::of(&document.paths.paths["/things"]);
        let get = operations.get(&Method::HEAD).unwrap();
        assert!(!get.body);
        for taken in [
            "",
            "limit=1",
            "limit=",
            "filter[a]=1&limit=2",
            "filter%5Ba%5D=1",
            "filter=1",
            "&&",
        ] {
            assert_eq!(get.check_query(Some(taken)), Ok(()), "{taken}");
        }
        for (refused, pointer) in [
            ("more=1", "/more"),
            ("limit=1&Limit=2", "/Limit"),
            ("filter[]=1", "/filter[]"),
            ("x-request-id=1", "/x-request-id"),
            ("a/b=1", "/a~1b"),
            ("=1", "/"),
        ] {
            let problem = get.check_query(Some(refused)).unwrap_err();
            assert_eq!(problem.fields[0].pointer, pointer, "{refused}");
        }
        for broken in ["limit=%FF", "%c3=1", "filter[a]=x%C3%28"] {
            let problem = get.check_query(Some(broken)).unwrap_err();
            assert_eq!(problem.code, Code::InvalidRequest, "{broken}");
        }
        let post = operations.get(&Method::POST).unwrap();
        let problem = post.check_query(Some("limit=1")).unwrap_err();
        assert_eq!(
            problem.fields[0].detail,
            "is no parameter of this call, which takes none"
        );
        assert!(operations.get(&Method::PATCH).is_none());
    }
}
