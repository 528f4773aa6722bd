//! Parts that are of different ages, or of different installations.

use super::*;

/// Directories that were stopped as they should be, but for the last one.
struct Ages {
    /// A copy of an earlier day.
    old: PathBuf,
    /// The same directory later: with another tenant, other meters and more events.
    new: PathBuf,
    /// The earlier day's copy, gone on with elsewhere, with more changes.
    elsewhere: PathBuf,
    /// One that has nothing to do with them.
    other: PathBuf,
    /// The newest, whose process was killed.
    killed: PathBuf,
    /// The newest, without the events that retention has deleted.
    deleted: PathBuf,
}

impl Ages {
    async fn make(directory: &Path) -> Self {
        let place = |name: &str| directory.join(name);
        let (old, new, other) = (place("old"), place("new"), place("other"));
        stopped(&old).await;
        copy(&old, &new);
        let mut app = App::start_with(AppOptions::small(BINARY, &new)).await;
        let beta = app.tenant(&json!({"key": "beta"})).await;
        let secret = json!({"event_type": "secret", "aggregation": "count"});
        app.caller(&beta).put("/v1/meters/secret", &secret).await;
        let event =
            |id: u32| json!({"id": format!("b{id}"), "source": "s", "type": "secret", "subject": "b"});
        let events: Vec<_> = (0..77).map(event).collect();
        let (status, answer) = app.caller(&beta).post("/v1/events", &json!(events)).await;
        assert_eq!((status, answer["accepted"].as_u64()), (200, Some(77)), "{answer}");
        assert_eq!(app.terminate().0, Some(0));
        stopped(&other).await;
        let elsewhere = place("elsewhere");
        copy(&old, &elsewhere);
        let mut app = App::start_with(AppOptions::small(BINARY, &elsewhere)).await;
        for n in 0..30 {
            app.admin().put(&format!("/v1/meters/else-{n}"), &secret).await;
        }
        assert_eq!(app.terminate().0, Some(0));
        let killed = place("killed");
        copy(&new, &killed);
        let mut app = App::start_with(AppOptions::small(BINARY, &killed)).await;
        app.admin().put("/v1/meters/late", &secret).await;
        app.kill();
        let deleted = place("deleted");
        copy(&new, &deleted);
        delete_old_events(&deleted).await;
        Self {
            old,
            new,
            elsewhere,
            other,
            killed,
            deleted,
        }
    }
}

/// Lets retention delete what it may.
async fn delete_old_events(data: &Path) {
    let before = segments(data).len();
    let mut options = AppOptions::small(BINARY, data);
    options.set("TURNPIKE_ENGINE_RETENTION_DAYS", "30");
    options.set("TURNPIKE_ENGINE_RETENTION_CHECK_INTERVAL_S", "1");
    let mut app = App::start_with(options).await;
    let began = Instant::now();
    while segments(data).len() + 3 > before && began.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(app.terminate().0, Some(0));
    let left = segments(data).len();
    assert!(
        left < before && left >= 2,
        "vacuous: {left} of {before} segments are left"
    );
}

/// Puts a part of one directory in place of that of another.
fn put(part: &str, from: &Path, to: &Path) {
    let (from, to) = (from.join(part), to.join(part));
    if to.is_dir() {
        std::fs::remove_dir_all(&to).expect("removed");
        copy(&from, &to);
    } else {
        std::fs::copy(&from, &to).expect("copied");
    }
}

fn without_views(data: &Path) {
    std::fs::remove_dir_all(data.join("views")).expect("removed");
}

/// What is mixed, what it is made of (the first one whole, changed by the rest), what is told, and who refuses it.
type Mix = (
    &'static str,
    fn(&Ages) -> &Path,
    fn(&Ages, &Path),
    &'static str,
    &'static [&'static str],
);

/// What is mixed, and how.
type Derived = (&'static str, fn(&Ages, &Path));

const ALL: &[&str] = &["doctor", "rebuild", "serve"];
/// What a rebuild derives anew.
const BUT_REBUILD: &[&str] = &["doctor", "serve"];

const MIXES: &[Mix] = &[
    (
        "an older database",
        |ages| &ages.new,
        |ages, data| put("turnpike.db", &ages.old, data),
        "newer database",
        ALL,
    ),
    (
        "an older database, and no views",
        |ages| &ages.new,
        |ages, data| {
            put("turnpike.db", &ages.old, data);
            without_views(data);
        },
        "newer database",
        ALL,
    ),
    (
        "a database without its write-ahead log",
        |ages| &ages.killed,
        |_, _| {},
        "newer database",
        ALL,
    ),
    (
        "a database that went on elsewhere, with more changes",
        |ages| &ages.new,
        |ages, data| put("turnpike.db", &ages.elsewhere, data),
        "another copy of the database",
        ALL,
    ),
    (
        "another installation's database",
        |ages| &ages.new,
        |ages, data| put("turnpike.db", &ages.other, data),
        "another log",
        &["doctor", "serve"],
    ),
    (
        "another installation's database, and no views",
        |ages| &ages.new,
        |ages, data| {
            put("turnpike.db", &ages.other, data);
            without_views(data);
        },
        "is not the one that the database",
        ALL,
    ),
    (
        "an older log, and no views",
        |ages| &ages.new,
        |ages, data| {
            put("log", &ages.old, data);
            without_views(data);
        },
        "database knows it up to offset",
        ALL,
    ),
    (
        "an older log, and views as old",
        |ages| &ages.new,
        |ages, data| {
            put("log", &ages.old, data);
            put("views", &ages.old, data);
        },
        "database knows it up to offset",
        ALL,
    ),
    (
        "an older log",
        |ages| &ages.new,
        |ages, data| put("log", &ages.old, data),
        "views contain it up to offset",
        ALL,
    ),
    (
        "another installation's views",
        |ages| &ages.new,
        |ages, data| put("views", &ages.other, data),
        "another log",
        BUT_REBUILD,
    ),
    (
        "another installation's partition",
        |ages| &ages.new,
        |ages, data| put("views/partition-00000", &ages.other, data),
        "another log",
        BUT_REBUILD,
    ),
    (
        "no mark of the database's age",
        |ages| &ages.new,
        |_, data| remove(&data.join("log/control")),
        "has lost its file `control`",
        ALL,
    ),
    (
        "another installation's mark",
        |ages| &ages.new,
        |ages, data| put("log/control", &ages.other, data),
        "is not the one that the database",
        ALL,
    ),
    (
        "less of the log than retention has kept",
        |ages| &ages.deleted,
        |_, data| remove(&segments(data)[0]),
        "segments are missing at its beginning",
        ALL,
    ),
    (
        "no views of what retention has deleted",
        |ages| &ages.deleted,
        |_, data| without_views(data),
        "stood in the views alone",
        ALL,
    ),
    (
        "a partition without views of what retention has deleted",
        |ages| &ages.deleted,
        |_, data| std::fs::remove_dir_all(data.join("views/partition-00000")).expect("removed"),
        "stood in the views alone",
        ALL,
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_different_ages_or_installations_are_refused_and_left_as_they_are() {
    let directory = tempfile::tempdir().expect("a directory");
    let ages = Ages::make(directory.path()).await;
    for (at, (name, from, mix, told_of, commands)) in MIXES.iter().enumerate() {
        let data = directory.path().join(at.to_string());
        copy(from(&ages), &data);
        mix(&ages, &data);
        refused(&data, name, told_of, commands);
    }
    println!("{} mixtures, each refused", MIXES.len());
    // Each by itself is good.
    for whole in [&ages.old, &ages.new, &ages.elsewhere, &ages.other, &ages.deleted] {
        let (code, told) = run(&["doctor", "--data-dir", &whole.display().to_string()]);
        assert_eq!(code, Some(0), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_that_are_older_or_gone_are_derived_again_and_those_of_another_log_by_a_rebuild() {
    let directory = tempfile::tempdir().expect("a directory");
    let ages = Ages::make(directory.path()).await;
    let mixes: [Derived; 4] = [
        ("older views", |ages, data| put("views", &ages.old, data)),
        ("no views", |_, data| without_views(data)),
        ("one of two partitions", |_, data| {
            std::fs::remove_dir_all(data.join("views/partition-00000")).expect("removed");
        }),
        ("another's views", |ages, data| put("views", &ages.other, data)),
    ];
    for (at, (name, mix)) in mixes.iter().enumerate() {
        let data = directory.path().join(format!("derived-{at}"));
        copy(&ages.new, &data);
        mix(&ages, &data);
        let place = data.display().to_string();
        if name.starts_with("another") {
            let (code, told) = run(&["rebuild", "--data-dir", &place]);
            assert!(
                code == Some(5) && told.contains("another log"),
                "{name}: {code:?} {told}"
            );
            assert!(data.join("views.old").exists(), "{name}: {told}");
        }
        let (code, told) = run(&["doctor", "--data-dir", &place]);
        assert_eq!(code, Some(0), "{name}: {told}");
        let mut app = App::start_with(AppOptions::small(BINARY, &data)).await;
        let counted = app.admin().total("count", "").await;
        assert_eq!(counted.as_deref(), Some("1000"), "{name}");
        app.kill();
    }
}
