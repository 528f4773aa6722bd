use serde_json::{Value, json};

use crate::app::{App, more, pro, tokens};

#[tokio::test]
async fn a_catalog_is_put_listed_and_taken_away() {
    let app = App::with_catalog().await;
    let plan = app.get("/v1/plans/pro").await.is(200, "");
    assert_eq!(
        (&plan["version"], &plan["name"], &plan["interval"]),
        (&json!(1), &json!("pro"), &json!("month"))
    );
    assert_eq!(
        app.get("/v1/meters").await.is(200, "")["data"][0]["event_type"],
        "llm.request"
    );
    app.delete("/v1/add-ons/more").await.is(204, "");
    app.get("/v1/add-ons/more").await.is(404, "not_found");
    app.delete("/v1/add-ons/more").await.is(404, "not_found");
}
