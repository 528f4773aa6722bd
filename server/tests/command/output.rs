//! What people read.

use insta::assert_snapshot;
use reqwest::Method;
use serde_json::json;

use crate::rig::{Server, alone};

/// A server with a customer on a plan, and usage of January 2025.
fn busy_server() -> Server {
    let server = Server::start();
    server.send(Method::PUT, "/v1/customers/acme", &json!({"name": "Acme"}));
    let start = json!({"customer": "acme", "plan": "pro", "start": "2025-01-01T00:00:00Z"});
    server.send(Method::POST, "/v1/subscriptions", &start);
    let table = "who,at,model,n
acme,2025-01-01 10:00:00,large,4
acme,2025-01-02 10:00:00,small,16
acme,2025-01-02 11:00:00,large,1200
acme,2025-01-05 10:00:00,large,600
";
    let file = server.file("usage.csv", table);
    let flags = ["--type", "call", "--subject-column", "who", "--time-column", "at"];
    server
        .call(&[&["import", &file], &flags[..]].concat())
        .succeeded();
    server
}

/// A text without what differs in each run: ids, and instants that are not of 2025.
fn masked(text: &str) -> String {
    let words = text.split_inclusive([' ', '\n']).map(|word| {
        let plain = word.trim();
        let instant = plain.parse::<jiff::Timestamp>().is_ok() && !plain.starts_with("2025");
        let id = plain.len() == 36 && plain.bytes().filter(|byte| *byte == b'-').count() == 4;
        match (instant, id) {
            (true, _) => word.replace(plain, "<time>"),
            (_, true) => word.replace(plain, "<id>"),
            _ => word.to_owned(),
        }
    });
    words.collect()
}

#[test]
fn the_commands_are_listed() {
    let directory = tempfile::tempdir().expect("a directory");
    let help = alone(directory.path(), &["--help"]).succeeded();
    let commands = help.split("\n\nOptions:").next().expect("the commands");
    assert_snapshot!(commands, @"
    Usage metering, quotas and billing

    Usage: turnpike <COMMAND>

    Commands:
      serve        Run the engine
      apply        Make the server's catalog what files declare, after showing the difference
      import       Send a file of usage: CSV, NDJSON or an access log
      usage        Show usage of a meter, with a bar for each value
      check        Ask whether a customer may use a feature now
      invoice      Bill, look at invoices, and verify them from the raw events
      keys         Make, list, rotate and revoke API keys
      export       Write usage, invoices, the audit log or the catalog
      backup       Copy a data directory as it is at one instant, while the server goes on serving
      restore      Make a data directory of a backup
      rebuild      Derive the views of a stopped data directory anew from its log, and compare
      verify       Derive invoices again from the raw events, and compare
      doctor       Look for what is wrong with configuration, machine and stored data
      config       Show the configuration that would apply
      demo         Show all of it in a minute, with a real server and real usage
      completions  Print a script that completes this program's commands in a shell
      help         Print this message or the help of the given subcommand(s)
    ");
}

#[test]
fn usage_is_a_table_with_bars() {
    let server = busy_server();
    let january = ["--from", "2025-01-01T00:00:00Z", "--to", "2025-02-01T00:00:00Z"];
    let by_day = [&["usage", "tokens", "--window", "day"], &january[..]].concat();
    assert_snapshot!(server.call(&by_day).succeeded(), @"
    START                 END                   VALUE
    2025-01-01T00:00:00Z  2025-01-02T00:00:00Z      4  ▏
    2025-01-02T00:00:00Z  2025-01-03T00:00:00Z  1,216  █████████████████████████████████████████████████
    2025-01-05T00:00:00Z  2025-01-06T00:00:00Z    600  ████████████████████████▏
    ");
    let by_subject = [&["usage", "tokens", "--group-by", "subject"], &january[..]].concat();
    assert_snapshot!(server.call(&by_subject).succeeded(), @"
    START                 END                   SUBJECT  VALUE
    2025-01-01T00:00:00Z  2025-02-01T00:00:00Z  acme     1,820
    ");
    let by_model = [&["usage", "tokens", "--group-by", "model"], &january[..]].concat();
    assert_snapshot!(server.call(&by_model).succeeded(), @"
    START                 END                   MODEL  VALUE
    2025-01-01T00:00:00Z  2025-02-01T00:00:00Z  large  1,804  ██████████████████████████████████████████
    2025-01-01T00:00:00Z  2025-02-01T00:00:00Z  small     16  ▎
    ");
}

#[test]
fn a_check_shows_every_limit() {
    let server = busy_server();
    let asked = server.call(&["check", "acme", "tokens", "501"]);
    assert_snapshot!(masked(&asked.out), @"
    allowed    no
    reason     limit_reached
    limit      500
    used       0
    reserved   0
    remaining  500
    overage    0
    resets at  <time>
    as of      <time>

    CUSTOMER  PERIOD  MODE   LIMIT  USED  RESERVED  REMAINING  RESETS AT
    acme      month   hard  10,000     0         0     10,000  <time>
    acme      day     hard     500     0         0        500  <time>
    ");
    assert_eq!(asked.failed(5), "error: not allowed: limit_reached\n");
    let error = server.call(&["check", "acme", "tokns"]).failed(4);
    assert_snapshot!(error, @r#"
    error: POST /v1/quota/check: there is no feature "tokns" (not_found, HTTP 404)
    Did you mean "tokens"?
    "#);
}

#[test]
fn a_billing_run_shows_its_invoices() {
    let server = busy_server();
    let run = ["invoice", "run", "--period-end", "2025-03-01T00:00:00Z"];
    assert_snapshot!(masked(&server.call(&run).succeeded()), @"
    3 invoices, of what ended by 2025-03-01T00:00:00Z:

    NUMBER      CUSTOMER  PERIOD                    TOTAL  CURRENCY
    INV-000001  acme      2025-01-01 – 2025-01-01   29.00  USD
    INV-000002  acme      2025-01-01 – 2025-02-01   46.20  USD
    INV-000003  acme      2025-02-01 – 2025-03-01   29.00  USD
    total                                          104.20  USD
    ");
    assert_snapshot!(masked(&server.call(&run).succeeded()), @"No invoice: nothing that ended by 2025-03-01T00:00:00Z was left to bill.");
    assert_snapshot!(server.call(&["invoice", "show", "INV-000001"]).succeeded(), @"
    Invoice INV-000001 for acme: open, 2025-01-01 – 2025-01-01, USD

    LINE       QUANTITY  AMOUNT
    Pro: base         1   29.00

    subtotal    29.00
    discount     0.00
    credits      0.00
    tax          0.00
    total       29.00
    amount due  29.00
    ");
    assert_snapshot!(masked(&server.call(&["invoice", "list"]).succeeded()), @"
    INVOICE     CUSTOMER  STATUS  PERIOD                   TOTAL  CURRENCY
    INV-000003  acme      open    2025-02-01 – 2025-03-01  29.00  USD
    INV-000002  acme      open    2025-01-01 – 2025-02-01  46.20  USD
    INV-000001  acme      open    2025-01-01 – 2025-01-01  29.00  USD
    ");
    assert_snapshot!(server.call(&["verify"]).succeeded(), @"
    INVOICE     DERIVED AGAIN
    INV-000001  the same
    INV-000002  the same
    INV-000003  the same
    ");
    let error = server.call(&["invoice", "run", "--period-end", "soon"]).failed(4);
    assert_snapshot!(error, @"error: POST /v1/billing/runs: /period_end is not an RFC 3339 time such as 2026-01-31T23:59:59.5Z (invalid, HTTP 422)");
}

#[test]
fn an_import_ends_with_its_counts() {
    let server = Server::start();
    let file = server.file("a.csv", "who,n\na,1\n,2\na,1\n");
    let flags = ["--type", "call", "--subject-column", "who", "--now"];
    let ended = server.call(&[&["import", &file], &flags[..]].concat());
    assert_snapshot!(ended.out, @"
    ROWS        COUNT
    accepted        2
    duplicates      0
    conflicts       0
    rejected        1
    ");
    assert_snapshot!(ended.failed(5), @"error: some rows were refused (a.csv.refused.ndjson says why); correct them in the file and import it again: nothing is counted twice");
    let refused = std::fs::read_to_string(server.path("a.csv.refused.ndjson")).expect("the file");
    assert_snapshot!(refused, @r#"{"row":2,"line":3,"code":"invalid_row","detail":"column \"who\" (the subject) is empty","content":",2"}"#);
}

#[test]
fn a_catalog_that_changes_is_told() {
    let server = Server::start();
    let catalog = std::fs::read_to_string(server.path("catalog.toml")).expect("the catalog");
    let dearer = server.file("dearer.toml", catalog.replace("29.00", "39.00"));
    assert_snapshot!(server.call(&["apply", &dearer, "--dry-run"]).succeeded(), @r#"
    ~ plan pro  (new version 2)
        /prices/0/amount: "29" → "39"
    "#);
    assert_snapshot!(server.call(&["apply", "catalog.toml"]).succeeded(), @"Nothing to do: the catalog is as the files say.");
    let broken = server.file("broken.toml", "[[plan]]\nkey = \"a\"\n");
    assert_snapshot!(server.call(&["apply", &broken]).failed(2), @r#"error: broken.toml: unknown part "plan" (did you mean [[plans]]?); a catalog has [[meters]], [[features]], [[plans]], [[add_ons]]"#);
}

#[test]
fn a_doctor_says_what_it_looked_at() {
    let mut server = Server::start();
    server.kill();
    let found = server.call(&["doctor", "--data-dir", "data"]);
    // Figures of the machine are not ours to say.
    let lines = found.out.lines().map(|line| match line.split_once("ok  ") {
        Some((check, _)) => format!("{check}ok"),
        None => line.to_owned(),
    });
    let first: Vec<String> = lines
        .filter(|line| {
            !["disk", "open files", "clock"]
                .iter()
                .any(|of| line.starts_with(of))
        })
        .collect();
    assert_snapshot!(first.join("\n"), @"
    CHECK           VERDICT  DETAIL
    configuration   ok
    time zones      ok
    data directory  ok
    parts           ok
    other files     ok
    log             ok
    retention       ok
    views           ok
    database        ok
    ");
    let error = server.call(&["doctor", "--set", "http.drain_s=9999"]);
    assert_snapshot!(error.out, @"
    CHECK          VERDICT  DETAIL
    configuration  BAD      the command line: http.drain_s must be 0 to 3600, not 9999
    ");
    assert_snapshot!(error.failed(5), @"error: found bad: configuration");
}

#[test]
fn a_wrong_configuration_names_its_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("turnpike.toml");
    std::fs::write(&file, "[http]\ndrain_s = 5\ndrain = 6\n").expect("written");
    let shown = ["config", "--config", "turnpike.toml"];
    assert_snapshot!(alone(directory.path(), &shown).failed(2), @r#"error: turnpike.toml, line 3: unknown key "http.drain"; did you mean "http.drain_s"?"#);
    std::fs::write(&file, "[http]\ndrain_s = 5000\n").expect("written");
    assert_snapshot!(alone(directory.path(), &shown).failed(2), @"error: turnpike.toml, line 2: http.drain_s must be 0 to 3600, not 5000");
}
