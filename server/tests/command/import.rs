//! `turnpike import`, with files as they come and a server that goes away.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use crate::rig::Server;

const CSV: [&str; 5] = ["--type", "call", "--subject-column", "who", "--json"];

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
        ("a.csv", "\"who\",n\na,4\n", &CSV[..4]),
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
    ]);
    assert!(
        error.error.contains("xz -dc a.csv | turnpike import -"),
        "{error:?}"
    );
}

/// Waits until the server has counted something of what is on its way.
fn wait_until_some_is_counted(server: &Server) {
    for _ in 0..200 {
        if server.total() != "0" {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("nothing was counted");
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
