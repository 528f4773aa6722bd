//! Parameters that are wrong.

use axum::http::StatusCode;
use serde_json::Value;
use turnpike_domain::identity::Scope;

use crate::common::runtime;
use crate::{get, world};

#[test]
fn wrong_parameters_are_named() {
    runtime().block_on(async {
        let world = world().await;
        for (query, status, pointer) in [
            ("window=hour", 422, "/from"),
            ("from=2026-03-29T00:00:30Z", 422, "/from"),
            ("from=2026-03-29T00:00:00Z&to=2026-03-29T00:00:00Z", 422, "/to"),
            ("from=2026-03-29T00:00:00Z&window=week", 422, "/window"),
            ("from=1970-01-01T00:00:00Z&window=minute", 422, "/window"),
            ("tz=Mars/Base", 422, "/tz"),
            ("group_by=nope", 422, "/group_by"),
            ("filter[nope]=1", 422, "/filter[nope]"),
            ("limit=0", 422, "/limit"),
            ("cursor=x", 422, "/cursor"),
            ("limit=x", 422, "/limit"),
            ("tz=", 422, "/tz"),
            ("group_by=", 422, "/group_by"),
            ("customer=", 422, "/customer"),
            ("subject=a&subject=", 422, "/subject"),
            ("colour=red", 422, "/colour"),
            ("format=csv&limit=5", 422, "/limit"),
            ("format=ndjson&limit=x", 422, "/limit"),
            ("format=ndjson&cursor=x", 422, "/cursor"),
            ("format=csv&cursor=", 422, "/cursor"),
        ] {
            let (got, body) = get(
                &world,
                Scope::Read,
                &format!("/v1/meters/tokens/usage?{query}"),
                "*/*",
            )
            .await;
            assert_eq!(got.as_u16(), status, "{query}: {body}");
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["errors"][0]["pointer"], pointer, "{query}");
        }
        assert_eq!(
            get(&world, Scope::Read, "/v1/meters/nope/usage", "*/*").await.0,
            StatusCode::NOT_FOUND
        );
        for uri in [
            "/v1/meters/tokens/usage",
            "/v1/export/usage",
            "/api/v1/meters/tokens/query",
        ] {
            assert_eq!(
                get(&world, Scope::Ingest, uri, "*/*").await.0,
                StatusCode::FORBIDDEN
            );
        }
    });
}
