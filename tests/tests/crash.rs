//! R1 and R2: the process is killed at random instants and at every fail point; what was acknowledged counts once.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use turnpike_stores::fault::POINTS;
use turnpike_tests::app::{App, AppOptions};
use turnpike_tests::workload::{Workload, declare, seed, times};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");

/// Sends batches and corrections until the server dies; what was not answered is sent again once it is back.
async fn load_until(workload: &mut Workload, app: &mut App, random: &mut StdRng, stop: Duration) {
    let killer = {
        let pid = app.pid();
        tokio::spawn(async move {
            tokio::time::sleep(stop).await;
            // Sent from outside, as an operator's or the kernel's would be.
            let _ = std::process::Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .status();
        })
    };
    let caller = app.admin();
    loop {
        let size = random.random_range(1..200);
        let batch = workload.batch(size);
        if !workload.send(&caller, &batch, false).await {
            killer.await.expect("the killer ends");
            app.restart().await;
            let caller = app.admin();
            assert!(workload.send(&caller, &batch, true).await, "the server is back");
            return;
        }
        if let Some(correction) = workload.correction()
            && !workload.correct(&caller, &correction).await
        {
            killer.await.expect("the killer ends");
            app.restart().await;
            let caller = app.admin();
            assert!(workload.correct(&caller, &correction).await, "the server is back");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_killed_at_random_instants() {
    let seed = seed("--test crash r1", 1);
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    declare(&app.admin()).await;
    let (mut workload, mut random) = (Workload::new(seed), StdRng::seed_from_u64(seed ^ 0xdead));
    let kills = times(50, 1_000);
    for round in 0..kills {
        let stop = Duration::from_millis(random.random_range(20..700));
        load_until(&mut workload, &mut app, &mut random, stop).await;
        if round % 10 == 9 {
            workload.verify(&app.admin()).await;
        }
    }
    workload.verify(&app.admin()).await;
    println!(
        "injected {kills} kills; {:?}; {} ids",
        workload.counts,
        workload.oracle.len()
    );
    assert!(
        workload.oracle.len() > kills,
        "vacuous: hardly anything was acknowledged"
    );
}

/// Works with a point armed until the server dies; false when it lives through all of it.
async fn dies_at(point: &str, workload: &mut Workload, app: &mut App, random: &mut StdRng) -> bool {
    if !app.restart_armed(point).await {
        app.restart().await;
        return true;
    }
    for round in 0..60 {
        let size = random.random_range(1..400);
        let batch = workload.batch(size);
        let caller = app.admin();
        // A change of the control store, for its fail points; repeated after the crash, and the same then.
        let feature = serde_json::json!({"kind": "boolean", "name": format!("{point} {round}")});
        let path = "/v1/features/crashed";
        let changed = caller.send(reqwest::Method::PUT, path, Some(&feature)).await;
        if changed.is_some() && workload.send(&caller, &batch, false).await {
            continue;
        }
        assert!(
            app.ends_within(Duration::from_secs(10)),
            "{point}: no answer, but the server lives"
        );
        app.restart().await;
        let caller = app.admin();
        caller.put(path, &feature).await;
        assert!(workload.send(&caller, &batch, true).await, "the server is back");
        return true;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_killed_at_every_fail_point() {
    let seed = seed("--test crash r2", 2);
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start_with(AppOptions::small(BINARY, directory.path())).await;
    declare(&app.admin()).await;
    let (mut workload, mut random) = (Workload::new(seed), StdRng::seed_from_u64(seed));
    let mut fired = Vec::new();
    for point in POINTS {
        for nth in 1..=times(2, 20) {
            if dies_at(&format!("{point}:{nth}"), &mut workload, &mut app, &mut random).await {
                fired.push(*point);
            }
        }
        workload.verify(&app.admin()).await;
    }
    println!("injected {} crashes at {fired:?}", fired.len());
    let missed: Vec<_> = POINTS.iter().filter(|point| !fired.contains(point)).collect();
    assert!(missed.is_empty(), "never fired: {missed:?}");
}
