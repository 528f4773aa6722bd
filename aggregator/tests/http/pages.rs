//! Pages, and rows that are sent whole.

use serde_json::{Value, json};
use turnpike_domain::identity::Scope;

use crate::common::runtime;
use crate::{DAY, get, read, world};

#[test]
fn pages_follow_each_other_without_gap_or_overlap() {
    runtime().block_on(async {
        let world = world().await;
        let base = format!("/v1/meters/tokens/usage?{DAY}&window=hour&group_by=subject");
        let whole = read(&world, &base).await["data"].as_array().unwrap().clone();
        let (mut pages, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = read(&world, &format!("{base}&limit=2&cursor={cursor}")).await;
            pages.extend(page["data"].as_array().unwrap().clone());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(pages, whole);
        assert_eq!(whole.len(), 5);
    });
}

#[test]
fn csv_and_ndjson_by_accept_or_format() {
    runtime().block_on(async {
        let world = world().await;
        let uri = format!("/v1/meters/tokens/usage?{DAY}&group_by=customer");
        let (_, csv) = get(&world, Scope::Read, &uri, "text/csv").await;
        assert_eq!(csv.lines().next(), Some("start,end,customer,value"));
        assert_eq!(
            csv.lines().nth(1),
            Some("2026-03-29T00:00:00Z,2026-03-30T00:00:00Z,acme,19.5")
        );
        let (_, lines) = get(&world, Scope::Read, &format!("{uri}&format=ndjson"), "text/csv").await;
        assert_eq!(lines.lines().count(), 3);
        let (_, export) = get(&world, Scope::Read, &format!("/v1/export/usage?{DAY}"), "*/*").await;
        assert_eq!(
            export.lines().next(),
            Some("meter,start,end,customer,subject,group,value")
        );
        assert_eq!(export.lines().count(), 1 + 2 * 3);
        let (_, one) = get(
            &world,
            Scope::Read,
            &format!("/v1/export/usage?{DAY}&meter=calls&format=ndjson"),
            "*/*",
        )
        .await;
        let first: Value = serde_json::from_str(one.lines().next().unwrap()).unwrap();
        assert_eq!(
            (&first["meter"], &first["customer"], &first["value"]),
            (&json!("calls"), &json!("acme"), &json!("3"))
        );
    });
}

#[test]
fn a_cursor_goes_on_with_its_own_query_only() {
    runtime().block_on(async {
        let world = world().await;
        let base = format!("{DAY}&window=hour&group_by=subject&limit=2");
        let first = read(&world, &format!("/v1/meters/tokens/usage?{base}")).await;
        let cursor = first["next_cursor"].as_str().unwrap();
        let same = format!("limit=3&group_by=subject&window=hour&{DAY}&cursor={cursor}");
        assert_eq!(
            read(&world, &format!("/v1/meters/tokens/usage?{same}")).await["data"]
                .as_array()
                .unwrap()
                .len(),
            3
        );
        for other in [
            format!("/v1/meters/calls/usage?{base}&cursor={cursor}"),
            format!("/v1/meters/tokens/usage?{base}&subject=a1&cursor={cursor}"),
            format!("/v1/meters/tokens/usage?{DAY}&window=minute&group_by=subject&limit=2&cursor={cursor}"),
        ] {
            let (status, body) = get(&world, Scope::Read, &other, "*/*").await;
            assert_eq!(status.as_u16(), 422, "{other}: {body}");
            assert!(body.contains("/cursor"), "{body}");
        }
    });
}
