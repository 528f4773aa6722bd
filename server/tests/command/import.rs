//! `turnpike import`, with files as they come and a server that goes away.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{Server, wait_until};

const CSV: [&str; 6] = ["--type", "call", "--subject-column", "who", "--now", "--json"];

fn csv_lines(numbers: std::ops::Range<u32>) -> String {
    numbers.fold(String::new(), |mut lines, number| {
        let _ = writeln!(lines, "c{},{number}", number % 7);
        lines
    })
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_line() {
    let server = Server::start();
    let log = "1.2.3.4 - - [17/May/2015:10:05:03 +0000] \"GET /a HTTP/1.1\" 200 5 \"-\" \"x\"";
    let event = r#"{"id":"1","source":"s","type":"call","subject":"a","data":{"n":3}}"#;
    for (name, text, more) in [
        ("a.ndjson", event, &[][..]),
        ("access.log", log, &[]),
        // A title in quotes, as spreadsheets write it.
        ("a.csv", "\"who\",n\na,4\n", &CSV[..5]),
    ] {
        let file = server.file(name, format!("\u{feff}{text}\n"));
        let ended = server.call(&[&["import", &file, "--json"], more].concat());
        assert_eq!(ended.json()["accepted"], 1, "{name}");
    }
    assert_eq!(server.total(), "7");
}

#[test]
fn all_columns_that_are_missing_are_named_at_once() {
    let server = Server::start();
    let file = server.file("a.csv", "customer,tokens\na,1\n");
    let flags = [
        "--type",
        "call",
        "--subject-column",
        "custmer",
        "--time-column",
        "at",
    ];
    let error = server.call(&[&["import", &file], &flags[..]].concat()).failed(2);
    let expected = "error: there are no columns \"at\", \"custmer\" (did you mean \"customer\"?); there are: customer, tokens\n";
    assert_eq!(error, expected);
    let log = server.file("access.log", "junk\n");
    let error = server
        .call(&["import", &log, "--subject-column", "usr"])
        .failed(2);
    assert!(error.contains("did you mean \"user\"?"), "{error}");
}

#[test]
fn what_is_packed_is_told_by_its_first_bytes() {
    let server = Server::start();
    let text = format!("who,n\n{}", csv_lines(1..101));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).expect("packed");
    let zstd = zstd::encode_all(text.as_bytes(), 3).expect("packed");
    for (name, bytes, counted) in [
        ("gzip.csv", gzip.finish().expect("packed"), "accepted"),
        ("zstd.csv", zstd, "duplicates"),
        // Its name is wrong: somebody unpacked it on the way.
        ("plain.csv.gz", text.into_bytes(), "duplicates"),
    ] {
        let file = server.file(name, bytes);
        let ended = server.call(&[&["import", &file], &CSV[..]].concat());
        assert_eq!(ended.json()[counted], 100, "{name}");
    }
    let error = server.call(&[
        "import",
        &server.file("a.csv", b"\xfd7zXZ\0\0"),
        "--type",
        "call",
        "--subject",
        "a",
        "--now",
    ]);
    assert!(
        error.error.contains("xz -dc a.csv | turnpike import -"),
        "{error:?}"
    );
}

/// Waits until the server has counted something of what is on its way.
fn wait_until_some_is_counted(server: &Server) {
    wait_until(|| server.total() != "0");
}

#[test]
fn an_import_outlives_its_server_and_counts_nothing_twice() {
    let mut server = Server::start();
    let mut import = server.fed(&[&["import", "-", "--format", "csv"], &CSV[..]].concat());
    import.write(&format!("who,n\n{}", csv_lines(0..5_000)));
    wait_until_some_is_counted(&server);
    server.kill();
    import.write(&csv_lines(5_000..10_000));
    std::thread::sleep(Duration::from_millis(500));
    server.serve();
    import.write(&csv_lines(10_000..12_000));
    let ended = import.end();
    assert!(ended.error.contains("went away"), "{}", ended.error);
    assert!(ended.error.ends_with("the server is back\n"), "{}", ended.error);
    let counts = ended.json();
    let count = |name: &str| counts[name].as_u64().expect("a count");
    assert_eq!(count("accepted") + count("duplicates"), 12_000, "{counts}");
    assert_eq!((count("conflicts"), count("rejected")), (0, 0));
    assert_eq!(server.total(), (0..12_000_u64).sum::<u64>().to_string());
}

#[test]
fn an_import_gives_up_after_its_time_and_goes_on_when_it_is_run_again() {
    let mut server = Server::start();
    let arguments = [&["import", "-", "--format", "csv", "--retry-s", "1"], &CSV[..]].concat();
    let mut import = server.fed(&arguments);
    import.write(&format!("who,n\n{}", csv_lines(0..3_000)));
    wait_until_some_is_counted(&server);
    server.kill();
    import.write(&csv_lines(3_000..6_000));
    let error = import.end().failed(3);
    assert!(error.contains("cannot reach the server"), "{error}");
    assert!(error.contains("run the same command again to go on"), "{error}");
    server.serve();
    let mut again = server.fed(&arguments);
    again.write(&format!("who,n\n{}", csv_lines(0..6_000)));
    let counts = again.end().json();
    let count = |name: &str| counts[name].as_u64().expect("a count");
    assert_eq!(count("accepted") + count("duplicates"), 6_000, "{counts}");
    assert!(count("accepted") > 0 && count("duplicates") > 0, "{counts}");
    assert_eq!(server.total(), (0..6_000_u64).sum::<u64>().to_string());
}

#[test]
fn a_server_that_never_was_there_is_not_waited_for() {
    let mut server = Server::start();
    server.kill();
    let file = server.file("a.csv", "who,n\na,1\n");
    let error = server.call(&[&["import", &file], &CSV[..]].concat()).failed(3);
    assert!(error.contains("is `turnpike serve` running there?"), "{error}");
}

#[test]
fn an_import_that_is_stopped_tells_its_counts_and_goes_on() {
    let server = Server::start();
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let refused = format!("{code}.ndjson");
        let source = code.to_string();
        let arguments = [
            &[
                "import",
                "-",
                "--format",
                "csv",
                "--refused",
                &refused,
                "--source",
                &source,
            ][..],
            &CSV,
        ]
        .concat();
        let mut import = server.fed(&arguments);
        // Rows are counted in their order, so the file of refused rows shows that those before are.
        let first = format!("who,n\n{},1\n", csv_lines(0..2_500));
        import.write(&first);
        wait_until(|| server.path(&refused).exists());
        let ended = import.stop(signal);
        let counts: Value = serde_json::from_str(&ended.out).expect("counts");
        assert_eq!(
            (&counts["accepted"], &counts["rejected"], &counts["refused_file"]),
            (&json!(2_000), &json!(1), &json!(refused)),
            "what was sent in whole requests"
        );
        let error = ended.failed(code);
        assert!(error.contains("run the same command again to go on"), "{error}");
        let written = std::fs::read_to_string(server.path(&refused)).expect("the file");
        assert!(written.starts_with("{\"row\":2501,\"line\":2502,"), "{written}");
        let mut again = server.fed(&arguments);
        again.write(&first);
        let counts: Value = serde_json::from_str(&again.end().out).expect("counts");
        assert_eq!(
            (&counts["accepted"], &counts["duplicates"], &counts["rejected"]),
            (&json!(500), &json!(2_000), &json!(1))
        );
    }
}

#[test]
fn the_file_that_is_read_is_not_written() {
    let server = Server::start();
    let file = server.file("a.csv", "who,n\n,1\n");
    std::os::unix::fs::symlink(server.path("a.csv"), server.path("same.csv")).expect("linked");
    for refused in ["a.csv", "same.csv"] {
        let error = server.call(&[&["import", &file, "--refused", refused], &CSV[..5]].concat());
        assert!(error.failed(2).contains("would overwrite a.csv"), "{refused}");
    }
    assert_eq!(
        std::fs::read_to_string(server.path("a.csv")).expect("the file"),
        "who,n\n,1\n"
    );
}

#[test]
fn rows_without_a_time_count_once_and_only_where_that_is_said() {
    let server = Server::start();
    let file = server.file("a.csv", "who,n\na,1\n");
    let without = [
        "import",
        &file,
        "--type",
        "call",
        "--subject-column",
        "who",
        "--json",
    ];
    let error = server.call(&without).failed(2);
    assert!(
        error.contains("--time-column") && error.contains("--now"),
        "{error}"
    );
    let now = [&without[..], &["--now"]].concat();
    assert_eq!(server.call(&now).json()["accepted"], 1);
    // The time of the first arrival stays: the same file is the same usage, whenever it comes again.
    let again = server.call(&now).json();
    assert_eq!(
        (&again["duplicates"], &again["conflicts"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(server.total(), "1");
}

#[test]
fn conflicts_of_made_ids_are_explained() {
    let server = Server::start();
    let file = server.file("a.csv", "who,n\na,1\n");
    server.call(&[&["import", &file], &CSV[..]].concat()).succeeded();
    let other = ["import", &file, "--type", "other", "--subject-column", "who"];
    let error = server.call(&[&other[..], &["--now"]].concat()).failed(5);
    assert!(
        error.contains("another --type") && error.contains("--source"),
        "{error}"
    );
    let error = server.call(&[&other[..], &["--time-column", "n", "--time-format", "%H:%M"]].concat());
    assert!(error.failed(2).contains("--time-format %H:%M"));
}
