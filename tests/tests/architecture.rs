//! The house's rules that a compiler does not check: who may depend on whom, licences, sizes of files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on inside the workspace. Only `server`, `tests` and `benches` see both sides.
const ALLOWED: &[(&str, &[&str])] = &[
    ("turnpike-domain", &[]),
    ("turnpike-http", &["turnpike-domain"]),
    ("turnpike-stores", &["turnpike-domain"]),
    ("turnpike-ingest", &["turnpike-domain", "turnpike-http"]),
    ("turnpike-aggregator", &["turnpike-domain", "turnpike-http"]),
    ("turnpike-enforcer", &["turnpike-domain", "turnpike-http"]),
    ("turnpike-billing-sync", &["turnpike-domain", "turnpike-http"]),
    // It goes into the services of others: what it needs of the engine comes over HTTP.
    ("turnpike-client", &[]),
];

/// What must not be in reach of `domain`: I/O, runtimes, clocks, randomness.
const NOT_IN_DOMAIN: &[&str] = &[
    "tokio",
    "axum",
    "hyper",
    "sqlx",
    "rand",
    "reqwest",
    "metrics",
    "tracing",
    "parking_lot",
];

#[rustfmt::skip]
const LICENCES: &[&str] = &[
    "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CDLA-Permissive-2.0",
    "ISC", "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib", "blessing",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Normal and build dependencies of a package; those only for tests are free.
fn dependencies(package: &Value) -> BTreeSet<&str> {
    let dependencies = package["dependencies"].as_array().unwrap().iter();
    dependencies
        .filter(|d| d["kind"] != "dev")
        .map(|d| d["name"].as_str().unwrap())
        .collect()
}

#[test]
fn crates_depend_one_way() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let by_name: BTreeMap<_, _> = packages
        .iter()
        .map(|p| (p["name"].as_str().unwrap(), p))
        .collect();
    for (name, allowed) in ALLOWED {
        let package = by_name
            .get(name)
            .unwrap_or_else(|| panic!("there is no crate {name}"));
        let inside = dependencies(package)
            .into_iter()
            .filter(|d| d.starts_with("turnpike-"));
        let forbidden: Vec<_> = inside.filter(|d| !allowed.contains(d)).collect();
        assert!(forbidden.is_empty(), "{name} must not depend on {forbidden:?}");
    }
    let known: BTreeSet<_> = ALLOWED.iter().map(|(name, _)| *name).collect();
    let both_sides = ["turnpike-server", "turnpike-tests", "turnpike-benches"];
    let members = packages
        .iter()
        .filter(|p| p["source"].is_null())
        .map(|p| p["name"].as_str().unwrap());
    let unknown: Vec<_> = members
        .filter(|name| !known.contains(name) && !both_sides.contains(name))
        .collect();
    assert!(
        unknown.is_empty(),
        "say in ALLOWED what {unknown:?} may depend on"
    );
}

#[test]
fn the_domain_is_pure() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap().iter();
    let nodes: BTreeMap<_, _> = nodes.map(|node| (node["id"].as_str().unwrap(), node)).collect();
    let names = packages
        .iter()
        .map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap()));
    let names: BTreeMap<_, _> = names.collect();
    let start = packages.iter().find(|p| p["name"] == "turnpike-domain").unwrap()["id"]
        .as_str()
        .unwrap();
    let (mut reached, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(at) = open.pop() {
        if !reached.insert(at) {
            continue;
        }
        for dependency in nodes[at]["deps"].as_array().unwrap() {
            if dependency["dep_kinds"]
                .as_array()
                .unwrap()
                .iter()
                .any(|kind| kind["kind"].is_null())
            {
                open.push(dependency["pkg"].as_str().unwrap());
            }
        }
    }
    let found: Vec<_> = reached
        .iter()
        .map(|id| names[id])
        .filter(|name| NOT_IN_DOMAIN.contains(name))
        .collect();
    assert!(found.is_empty(), "domain reaches {found:?}");
    assert!(reached.len() > 5, "the walk over the dependencies found nothing");
}

#[test]
fn licences_are_permissive() {
    let metadata = metadata();
    for package in metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| !p["source"].is_null())
    {
        let licence = package["license"].as_str().unwrap_or("").replace('/', " OR ");
        // One way of an "OR" is enough; every part of an "AND" must be allowed.
        let fits = licence.split(" OR ").any(|way| {
            way.split(" AND ")
                .all(|part| LICENCES.contains(&part.trim_matches(|c| "() ".contains(c))))
        });
        assert!(fits, "{} has the licence \"{licence}\"", package["name"]);
    }
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn files_stay_readable() {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    let production = files.iter().filter(|path| {
        let inside = path.strip_prefix(root()).unwrap();
        !inside.starts_with("tests")
            && !inside.starts_with("benches")
            && !inside.components().any(|c| c.as_os_str() == "tests")
    });
    let mut seen = 0;
    for path in production {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text
            .lines()
            .take_while(|line| !line.starts_with("#[cfg(test)]"))
            .count();
        assert!(
            lines <= 600,
            "{} has {lines} lines of production code: divide it",
            path.display()
        );
        seen += 1;
    }
    assert!(seen > 20, "no files were found");
}

#[test]
fn the_oracle_shares_nothing_with_the_engine() {
    let mut files = Vec::new();
    rust_files(&root().join("tests/src/oracle"), &mut files);
    assert!(
        files.len() > 4,
        "the oracle is not where this test looks: {files:?}"
    );
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file");
        let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let foreign = code.find(|line| {
            line.contains("turnpike_") || line.contains("crate::") && !line.contains("crate::oracle")
        });
        assert_eq!(foreign, None, "{} uses the engine", file.display());
    }
}
