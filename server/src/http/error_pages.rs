use std::fmt::Write as _;

use axum::Router;
use axum::extract::Path;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use turnpike_domain::problem::{Code, Problem};
use turnpike_http::{Failure, ProblemBody};

use super::docs_page::{page, prose};

/// `/docs/errors`: what `type` of a problem refers to, from the code table itself.
pub(crate) fn router() -> Router {
    Router::new()
        .route("/docs/errors", get(all))
        .route("/docs/errors/{code}", get(one))
}

/// All error codes.
#[utoipa::path(get, path = "/docs/errors", tag = "Operations", operation_id = "error_codes", responses(
    (status = 200, description = "HTML: each code with its status, whether a retry helps, and its meaning", body = String, content_type = "text/html"),
))]
pub(super) async fn all() -> Html<String> {
    let mut rows = String::new();
    for code in Code::ALL {
        let slug = code.slug();
        let _ = write!(
            rows,
            "<tr><td><a href=\"/docs/errors/{slug}\"><code>{slug}</code></a></td><td>{}</td><td>{}</td><td>{}</td></tr>",
            code.status(),
            if code.retryable() { "yes" } else { "no" },
            meaning(*code),
        );
    }
    Html(page(
        "Errors",
        &format!(
            "<h1>Errors</h1><p>Every failure is <code>application/problem+json</code> with one of these codes.</p>\
            <table><thead><tr><th>code</th><th>status</th><th>retry helps</th><th>meaning</th></tr></thead><tbody>{rows}</tbody></table>"
        ),
    ))
}

/// What a code means, in one line of HTML.
fn meaning(code: Code) -> String {
    let words: Vec<&str> = code.meaning().split_whitespace().collect();
    prose(&words.join(" "))
}

/// What an error code means and what to do: the page that a problem's `type` refers to.
#[utoipa::path(get, path = "/docs/errors/{code}", tag = "Operations", operation_id = "error_code",
    params(("code" = String, Path, description = "The code")), responses(
    (status = 200, description = "HTML", body = String, content_type = "text/html"),
    (status = 404, description = "No such code", body = ProblemBody),
))]
pub(super) async fn one(Path(slug): Path<String>) -> Response {
    let Some(code) = Code::ALL.iter().find(|code| code.slug() == slug) else {
        return Failure(Problem::not_found("error code", &slug)).into_response();
    };
    let retry = if code.retryable() {
        "The same call may succeed later: wait for the seconds in <code>Retry-After</code> where it is sent, then longer each time."
    } else {
        "The same call will fail again: change the request first."
    };
    let body = format!(
        "<h1><code>{slug}</code></h1><p>HTTP status {}.</p><p>{}</p><p>{retry}</p><p><a href=\"/docs/errors\">All codes</a></p>",
        code.status(),
        meaning(*code),
    );
    Html(page(&slug, &body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_code_has_its_page() {
        for code in Code::ALL {
            let response = one(Path(code.slug().to_owned())).await;
            assert_eq!(response.status(), 200, "{code:?}");
        }
        assert_eq!(one(Path("no_such".to_owned())).await.status(), 404);
        let Html(list) = all().await;
        for code in Code::ALL {
            assert!(
                list.contains(&format!("/docs/errors/{}\"", code.slug())),
                "{code:?}"
            );
            assert!(list.contains(&format!("<td>{}</td>", meaning(*code))), "{code:?}");
        }
        assert!(list.contains("from this address: wait"), "all lines of a meaning");
    }
}
