use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use turnpike_domain::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use turnpike_domain::port::control::PageAfter;
use turnpike_domain::problem::Problem;

use crate::{Cursor, Failure, Params};

/// Which page of a list is asked for: its `limit` and `cursor`, checked. A cursor belongs to the path and to the other
/// parameters that it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    /// The list that cursors belong to.
    list: String,
    limit: usize,
    after: Option<String>,
}

/// `limit` and `cursor` as they are sent.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Sent {
    /// Rows at the most: 1 to 1,000, 100 unless said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next_cursor` of the page before; the other parameters are the same as there. Any other text is 422.
    #[param(pattern = "^[A-Za-z0-9_-]*$")]
    cursor: Option<String>,
}

impl utoipa::IntoParams for PageQuery {
    fn into_params(
        parameter_in: impl Fn() -> Option<utoipa::openapi::path::ParameterIn>,
    ) -> Vec<utoipa::openapi::path::Parameter> {
        Sent::into_params(parameter_in)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PageQuery {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Params(Sent { limit, cursor }) = Params::from_request_parts(parts, state).await?;
        let list = list_of(&parts.uri);
        Ok(Self {
            limit: Self::rows_of(limit)?,
            after: Cursor::after(&list, cursor.as_deref())?,
            list,
        })
    }
}

/// The name of the list that `uri` asks for: its path, and its parameters however their names are ordered.
fn list_of(uri: &Uri) -> String {
    let query = uri.query().unwrap_or_default();
    let mut parameters: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name != "limit" && name != "cursor")
        .collect();
    parameters.sort_by(|(one, _), (other, _)| one.cmp(other));
    format!("{} {parameters:?}", uri.path())
}

impl PageQuery {
    /// The number of rows that `limit` asks for.
    fn rows_of(limit: Option<usize>) -> Result<usize, Problem> {
        match limit {
            None => Ok(PAGE_ROWS_DEFAULT),
            Some(rows) if (1..=PAGE_ROWS_MAX).contains(&rows) => Ok(rows),
            Some(_) => Err(Problem::invalid(
                "/limit",
                format!("must be 1 to {PAGE_ROWS_MAX}"),
            )),
        }
    }

    /// Rows at the most.
    pub const fn rows(&self) -> usize {
        self.limit
    }

    /// The place behind which the page begins; `None` for the first.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// What to read: one row more than the page has, which tells whether there is another.
    pub fn with_one_more(&self) -> PageAfter {
        PageAfter {
            after: self.after.clone(),
            rows: self.limit + 1,
        }
    }

    /// Cuts `rows` (one more than asked for, if there are more) to the page; the cursor is made from the last row kept.
    pub fn cut<T>(&self, mut rows: Vec<T>, place: impl FnOnce(&T) -> String) -> Page<T> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows.last().filter(|_| more).map(place);
        self.page(rows, next)
    }

    /// A page of `data` that goes on behind the place `next`.
    pub fn page<T>(&self, data: Vec<T>, next: Option<String>) -> Page<T> {
        Page {
            data,
            next_cursor: next.map(|place| Cursor::of(&self.list, &place)),
        }
    }
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Send as `cursor` for the next page; null on the last.
    #[schema(value_type = Option<String>)]
    pub next_cursor: Option<Cursor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(uri: &str) -> Result<PageQuery, Problem> {
        let request = axum::http::Request::get(uri).body(()).unwrap();
        PageQuery::from_request_parts(&mut request.into_parts().0, &())
            .await
            .map_err(|failure| failure.0)
    }

    #[tokio::test]
    async fn a_cursor_goes_on_with_its_own_list_only() {
        let first = asked("/v1/plans?a=1&b=%20&limit=2").await.unwrap();
        assert_eq!((first.rows(), first.after()), (2, None));
        let page = first.cut(vec!["x", "y", "z"], |row| (*row).to_owned());
        assert_eq!(page.data, ["x", "y"]);
        let cursor = page.next_cursor.unwrap().to_string();
        for same in ["?a=1&b=%20", "?b=+&limit=7&a=1"] {
            let again = asked(&format!("/v1/plans{same}&cursor={cursor}")).await.unwrap();
            assert_eq!(again.after(), Some("y"), "{same}");
        }
        for other in [
            "/v1/plans?",
            "/v1/plans?a=1&",
            "/v1/plans?a=1&b=2&",
            "/v1/plans?a=1&b=%20&c=3&",
            "/v1/features?a=1&b=%20&",
        ] {
            let refused = asked(&format!("{other}cursor={cursor}")).await.unwrap_err();
            assert_eq!(refused.fields[0].pointer, "/cursor", "{other}");
        }
        assert_eq!(asked("/v1/plans?cursor=").await.unwrap().after(), None);
    }

    #[tokio::test]
    async fn limits_are_whole_and_within_bounds() {
        assert_eq!(
            asked("/").await.unwrap().with_one_more().rows,
            PAGE_ROWS_DEFAULT + 1
        );
        for wrong in ["0", "1001", "-1", "x", "1.5", ""] {
            let refused = asked(&format!("/?limit={wrong}")).await.unwrap_err();
            assert_eq!(refused.fields[0].pointer, "/limit", "{wrong}");
        }
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let query = PageQuery {
            list: "/".to_owned(),
            limit: 2,
            after: None,
        };
        let page = query.cut(vec![1, 2], ToString::to_string);
        assert_eq!((page.data, page.next_cursor), (vec![1, 2], None));
    }
}
