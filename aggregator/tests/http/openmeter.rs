//! The query of OpenMeter's clients.

use serde_json::{Value, json};
use turnpike_domain::identity::Scope;

use super::common::{Event, runtime};
use super::{get, read, world};

#[test]
fn openmeters_clients_get_their_shape() {
    runtime().block_on(async {
        let world = world().await;
        let base = "/api/v1/meters/tokens/query";
        let answer = read(
            &world,
            &format!("{base}?from=2026-03-29T00%3A00%3A00.000Z&to=2026-03-29T23%3A59%3A59Z&windowSize=DAY&groupBy=g"),
        )
        .await;
        assert_eq!(answer["windowSize"], "DAY");
        assert_eq!(answer["to"], "2026-03-30T00:00:00Z", "cut to the end of its minute");
        assert_eq!(answer["data"][1], json!({
            "value": 21.5, "windowStart": "2026-03-29T00:00:00Z", "windowEnd": "2026-03-30T00:00:00Z",
            "subject": null, "groupBy": {"g": "x"},
        }));
        let one = read(&world, &format!("{base}?subject=a1&clientId=c")).await;
        assert_eq!(one["data"][0]["subject"], "a1");
        assert_eq!(one["data"][0]["value"], json!(17.5));
        for filter in ["filterGroupBy%5Bg%5D=y", "filterGroupBy=%7B%27g%27%3A+%27y%27%7D"] {
            assert_eq!(read(&world, &format!("{base}?{filter}")).await["data"][0]["value"], json!(2), "{filter}");
        }
        assert_eq!(read(&world, &format!("{base}?subject=nobody")).await["data"], json!([]));
        // Over all time: the windows begin with the first usage.
        for (size, query) in [("MONTH", ""), ("DAY", "&groupBy=g"), ("MINUTE", "&subject=a1"), ("HOUR", "&windowTimeZone=Asia/Kolkata")] {
            let open = read(&world, &format!("{base}?windowSize={size}{query}")).await;
            let given = read(&world, &format!("{base}?windowSize={size}{query}&from=2026-03-01T00:00:00Z&to=2026-04-01T00:00:00Z")).await;
            assert!(!open["data"].as_array().unwrap().is_empty(), "{size}: {open}");
            assert_eq!((&open["data"], &open["from"]), (&given["data"], &Value::Null), "{size}");
        }
        assert_eq!(read(&world, &format!("{base}?windowSize=DAY&subject=nobody")).await["data"], json!([]));
    });
}

/// That a month is beyond all numbers refuses none of its days: they are looked for by what was used, not by values.
#[test]
fn a_month_beyond_all_numbers_refuses_none_of_its_days() {
    runtime().block_on(async {
        let world = world().await;
        let most = "9".repeat(26);
        // 5 and 12 March 2026: each day is as great as numbers are, and both together are greater.
        for (id, second) in [(91, 1_772_668_800), (92, 1_773_273_600)] {
            let event = Event::new(id, "g1", second, format!(r#"{{"v": "{most}"}}"#));
            world.submit(&[event]).await.unwrap();
        }
        let base = "/api/v1/meters/tokens/query?subject=g1&windowSize=";
        let days = read(&world, &format!("{base}DAY")).await;
        let rows = days["data"].as_array().unwrap();
        let starts: Vec<_> = rows
            .iter()
            .map(|row| row["windowStart"].as_str().unwrap())
            .collect();
        assert_eq!(
            starts,
            [
                "2026-03-05T00:00:00Z",
                "2026-03-12T00:00:00Z",
                "2026-03-29T00:00:00Z"
            ]
        );
        // What is asked for itself is refused as before.
        let (status, body) = get(&world, Scope::Read, &format!("{base}MONTH"), "*/*").await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (status.as_u16(), &problem["code"]),
            (422, &json!("overflow")),
            "{body}"
        );
        // So it is for a day whose minutes are asked for.
        let event = Event::new(93, "g1", 1_772_668_860, r#"{"v": 1}"#);
        world.submit(&[event]).await.unwrap();
        let minutes = read(&world, &format!("{base}MINUTE")).await;
        assert_eq!(
            minutes["data"][0]["windowStart"], "2026-03-05T00:00:00Z",
            "{minutes}"
        );
        assert_eq!(minutes["data"].as_array().unwrap().len(), 4);
    });
}

#[test]
fn openmeters_parameters_are_read_and_named_as_its_clients_write_them() {
    runtime().block_on(async {
        let world = world().await;
        let base = "/api/v1/meters/tokens/query";
        let brien = Event::new(9, "a1", 1_774_742_400, r#"{"v": 32, "g": "o'brien"}"#);
        world.submit(&[brien]).await.unwrap();
        let python = "filterGroupBy=%7B%27g%27%3A+%22o%27brien%22%7D";
        assert_eq!(
            read(&world, &format!("{base}?{python}")).await["data"][0]["value"],
            json!(32)
        );
        for (query, pointer) in [
            ("groupBy=nope", "/groupBy"),
            ("windowSize=WEEK", "/windowSize"),
            ("from=1970-01-01T00:00:00Z&windowSize=MINUTE", "/windowSize"),
            ("filterGroupBy[nope]=x", "/filterGroupBy[nope]"),
            ("filterGroupBy=%7B%27g%27%3A1%7D", "/filterGroupBy"),
            // Two filters in two spellings: neither is silently left out, nor are both asked for together.
            (
                "filterGroupBy=%7B%22g%22%3A%22x%22%7D&filterGroupBy%5Bg%5D=x",
                "/filterGroupBy",
            ),
            (
                "filterGroupBy=%7B%22g%22%3A%22x%22%7D&filterGroupBy=%7B%22g%22%3A%22y%22%7D",
                "/filterGroupBy",
            ),
            (
                "advancedMeterGroupByFilters=%7B%7D",
                "/advancedMeterGroupByFilters",
            ),
        ] {
            let (status, body) = get(&world, Scope::Read, &format!("{base}?{query}"), "*/*").await;
            assert_eq!(status.as_u16(), 422, "{query}: {body}");
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["errors"][0]["pointer"], pointer, "{query}");
            assert!(body["detail"].as_str().unwrap().starts_with(pointer), "{body}");
        }
    });
}

#[test]
fn rows_of_csv_are_told_apart_by_customer() {
    runtime().block_on(async {
        let world = world().await;
        let base = "/api/v1/meters/tokens/query?from=2026-03-29T00:00:00Z&to=2026-03-30T00:00:00Z";
        let window = "2026-03-29T00:00:00Z,2026-03-30T00:00:00Z";
        for (query, head, rows) in [
            (
                "groupBy=customer_id",
                "subject,customer_id,value",
                [",acme,19.5", ",globex,4", ",loose,8"].as_slice(),
            ),
            (
                "filterCustomerId=acme&filterCustomerId=globex&groupBy=g",
                "subject,customer_id,g,value",
                &[",acme,x,17.5", ",globex,x,4", ",acme,y,2"],
            ),
            ("groupBy=g", "subject,g,value", &[",,8", ",x,21.5", ",y,2"]),
        ] {
            let (_, csv) = get(&world, Scope::Read, &format!("{base}&{query}"), "text/csv").await;
            let mut lines = csv.lines();
            assert_eq!(lines.next().unwrap(), format!("window_start,window_end,{head}"));
            let rows = rows.iter().map(|row| format!("{window},{row}"));
            assert_eq!(lines.collect::<Vec<_>>(), rows.collect::<Vec<_>>(), "{query}");
        }
    });
}
