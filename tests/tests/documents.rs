//! What the documents say is there: paths, tests of faults and invariants.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a root")
        .to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files below a folder whose names end so, by their paths from the root.
fn files(folder: &str, end: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                open.push(path);
            } else if path.ends_with(end) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The texts in backticks of a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The cells of a table's row that begins with `prefix` and a number.
fn rows<'t>(text: &'t str, prefix: &str) -> Vec<(u32, Vec<&'t str>)> {
    let row = |line: &'t str| {
        let cells: Vec<_> = line
            .strip_prefix('|')?
            .trim_end_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        let number = cells.first()?.strip_prefix(prefix)?.parse().ok()?;
        Some((number, cells))
    };
    text.lines().filter_map(row).collect()
}

/// The name of a test that is given as `file::name`, which must be there.
fn test_in(place: &str) -> &str {
    let (file, name) = place
        .split_once("::")
        .unwrap_or_else(|| panic!("{place} is not file::name"));
    let text = read(file);
    let at = text
        .find(&format!("fn {name}("))
        .unwrap_or_else(|| panic!("there is no {place}"));
    // A proptest's `#[test]` may stand before its comment.
    let before = &text[..at];
    let own = &before[before.rfind("\n}").map_or(0, |end| end + 2)..];
    assert!(
        own.contains("#[test]") || own.contains("#[tokio::test"),
        "{place} is not a test"
    );
    name
}

#[test]
fn every_fault_test_is_named_and_there() {
    let text = read("tests/README.md");
    let (mut seen, mut named) = (BTreeSet::new(), BTreeSet::new());
    for (number, cells) in rows(&text, "R") {
        seen.insert(number);
        let [_, test, _, sizes, command] = cells[..] else {
            assert!(cells.len() == 3, "R{number}: {cells:?}");
            continue;
        };
        let Some(place) = quoted(test).next() else {
            assert!(test.starts_with("to come"), "R{number}: {test}");
            continue;
        };
        let name = test_in(place);
        named.insert(name.to_owned());
        assert!(!sizes.is_empty(), "R{number} has no sizes");
        let command = quoted(command).next().unwrap_or_default();
        let folder = place.split('/').next().expect("a crate");
        let kind = if place.contains("/src/") {
            "--lib"
        } else {
            "--test"
        };
        assert!(
            command.starts_with(&format!("cargo test --workspace {kind} ")),
            "{place} is not run by: {command}"
        );
        let filter = command.rsplit(' ').next().expect("a filter");
        assert!(name.contains(filter), "{filter} does not choose {name}");
        if let Some((_, file)) = command.split_once("--test ") {
            let file = file.split(' ').next().expect("a file");
            let is_its = [
                format!("{folder}/tests/{file}.rs::"),
                format!("{folder}/tests/{file}/"),
            ];
            assert!(
                is_its.iter().any(|start| place.starts_with(start)),
                "{place} is not run by: {command}"
            );
        }
    }
    assert_eq!(seen, (1..=27).collect(), "a row for each fault");
    // And none that the table does not name.
    for file in files("tests/tests", ".rs") {
        for name in read(&file)
            .split("fn ")
            .skip(1)
            .filter_map(|code| code.split('(').next())
        {
            let number = name.strip_prefix('r').and_then(|rest| rest.split('_').next());
            if number.is_some_and(|number| number.parse::<u32>().is_ok()) {
                assert!(
                    named.contains(name),
                    "tests/README.md does not name {file}::{name}"
                );
            }
        }
    }
}

#[test]
fn every_invariant_names_the_tests_that_hold_it() {
    let text = read("ARCHITECTURE.md");
    let rows = rows(&text, "I");
    assert_eq!(
        rows.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        (1..=10).collect::<Vec<_>>()
    );
    for (number, cells) in rows {
        let [_, _, held, tests] = cells[..] else {
            panic!("I{number}: {cells:?}")
        };
        let named = quoted(tests).map(test_in).count();
        assert!(
            named > 0 || held.contains("to come"),
            "no test of I{number} is named"
        );
    }
}

/// Everything that a document says is a path: in backticks, below one of the project's folders, or linked.
fn paths(document: &str, text: &str) -> Vec<String> {
    let folders: Vec<String> = std::fs::read_dir(root())
        .expect("the root")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let within = |path: &&str| {
        path.split_once('/')
            .is_some_and(|(first, _)| folders.iter().any(|folder| folder == first))
    };
    let quoted = text.lines().flat_map(quoted).filter(within);
    let plain = |path: &str| path.split("::").next().unwrap_or(path).to_owned();
    let mut found: Vec<_> = quoted.filter(|path| !path.contains(' ')).map(plain).collect();
    let beside = document.rsplit_once('/').map_or("", |(folder, _)| folder);
    for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let target = link.split('#').next().expect("a target");
        if !target.is_empty() && !target.contains("://") {
            found.push(format!("{beside}/{target}").trim_start_matches('/').to_owned());
        }
    }
    found
}

/// Whether there is such a path. A `*` stands for anything at the place of a name.
fn exists(path: &str) -> bool {
    let Some((before, after)) = path.split_once('*') else {
        return root().join(path).exists();
    };
    let (folder, start) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = std::fs::read_dir(root().join(folder)) else {
        return false;
    };
    let mut names = entries.map(|entry| {
        entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    names.any(|name| name.starts_with(start) && name.ends_with(after))
}

#[test]
fn every_path_in_the_documents_is_there() {
    let mut documents = files("docs", ".md");
    documents.extend(
        [
            "README.md",
            "ARCHITECTURE.md",
            "tests/README.md",
            "benches/README.md",
        ]
        .map(str::to_owned),
    );
    let (mut seen, mut missing) = (0, Vec::new());
    for document in documents {
        for path in paths(&document, &read(&document)) {
            seen += 1;
            if !exists(&path) {
                missing.push(format!("{document}: {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(seen > 60, "only {seen} paths were found");
}

/// Whether a word of the map is a folder or a file of Rust.
fn is_entry(word: &str) -> bool {
    !word.contains(' ') && (word.ends_with('/') || Path::new(word).extension().is_some_and(|end| end == "rs"))
}

/// The files and folders of the map: a crate's folder at the beginning of a line, what is in it indented below.
fn mapped(text: &str) -> Vec<String> {
    let map = text.split("```").nth(1).expect("the map");
    let (mut folder, mut found) = (String::new(), Vec::new());
    for line in map.lines().filter(|line| !line.is_empty()) {
        let parts = line.split("  ").map(str::trim).filter(|part| !part.is_empty());
        let names = parts.filter(|part| is_entry(part));
        for name in names {
            if line.starts_with(' ') {
                found.push(format!("{folder}src/{name}"));
            } else {
                name.clone_into(&mut folder);
                found.push(name.to_owned());
            }
        }
    }
    found
}

#[test]
fn the_map_is_the_territory() {
    let mapped = mapped(&read("ARCHITECTURE.md"));
    assert!(mapped.len() > 30, "{mapped:?}");
    for path in &mapped {
        assert!(root().join(path).exists(), "the map shows {path}");
    }
    for entry in std::fs::read_dir(root()).expect("the root") {
        let entry = entry.expect("an entry");
        let name = format!("{}/", entry.file_name().to_string_lossy());
        if entry.path().join("Cargo.toml").exists() {
            assert!(mapped.contains(&name), "the map does not show {name}");
        }
    }
}

/// The metrics that a text names, without what Prometheus adds to histograms.
fn metrics_named(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !word(c))
        .filter(|name| name.starts_with("turnpike_"))
        .map(|name| name.trim_end_matches("_bucket").to_owned())
        .collect()
}

#[test]
fn rules_and_dashboard_name_metrics_that_exist() {
    let known = metrics_named(&read("docs/metrics.md"));
    for file in ["deploy/prometheus/alerts.yml", "deploy/grafana/turnpike.json"] {
        let text = read(file);
        let named = metrics_named(&text);
        assert!(named.len() > 5, "{file}: {named:?}");
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(
            unknown.is_empty(),
            "{file} names metrics that are not there: {unknown:?}"
        );
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("deploy/grafana/turnpike.json")).expect("a dashboard");
    let panels = dashboard["panels"].as_array().expect("panels");
    for panel in panels {
        let targets = panel["targets"].as_array().expect("targets");
        let asks = |target: &serde_json::Value| {
            let expression = target["expr"].as_str();
            expression.is_some_and(|expression| !metrics_named(expression).is_empty())
        };
        assert!(
            !targets.is_empty() && targets.iter().all(asks),
            "{}",
            panel["title"]
        );
    }
}

#[test]
fn the_image_is_built_with_the_pinned_toolchain() {
    let toolchain = read("rust-toolchain.toml");
    let pinned = toolchain.split('"').nth(1).expect("a channel");
    let image = read("deploy/Dockerfile");
    assert!(
        image.contains(&format!("FROM rust:{pinned}-")),
        "{pinned}: {image}"
    );
}
