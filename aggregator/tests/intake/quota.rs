//! Quota records: the states of a name.

use std::sync::Arc;

use crate::common::{KEY, TENANT, World, at, meter, quantity, runtime};
use parking_lot::Mutex;
use turnpike_aggregator::Options;
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::intake::{Correction, Expect, Hold, Intake as _, QuotaOutcome, QuotaRecord};
use turnpike_domain::port::usage::{UsageChange, UsageListener, UsageReader as _};
use turnpike_domain::quantity::UNIT;
use turnpike_domain::record::{
    EventRecord, GrantRecord, Position, QUOTA_SOURCE, Record, ReservationRecord, decode, encode,
};

fn grant(amount: i128, digest: u64) -> GrantRecord<'static> {
    GrantRecord {
        customer: "c",
        feature: "f",
        amount,
        reason: "within_limit",
        body_digest: digest,
    }
}

fn reservation(digest: u64) -> ReservationRecord<'static> {
    ReservationRecord {
        tenant: TENANT.0,
        id: "r1",
        made_us: 5,
        expires_us: 99,
        properties: "{}",
        grant: grant(4 * UNIT, digest),
    }
}

fn quota(record: &Record<'_>, expect: Expect, hold: Option<Hold>) -> QuotaRecord {
    let mut bytes = Vec::new();
    encode(record, &mut bytes);
    QuotaRecord {
        name: KEY.name(TENANT, QUOTA_SOURCE, "r1"),
        digest: 1,
        record: bytes,
        expect,
        hold,
    }
}

fn committed() -> EventRecord<'static> {
    EventRecord {
        tenant: TENANT.0,
        source: QUOTA_SOURCE,
        id: "r1",
        kind: "t",
        subject: "c",
        time_us: 60_000_000,
        time_sent: true,
        received_us: 60_000_000,
        data: r#"{"v": "3"}"#,
        extensions: "",
        grant: Some(grant(3 * UNIT, 7)),
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<(u32, String, bool)>>);

impl UsageListener for Heard {
    fn applied(&self, changes: &[UsageChange<'_>]) {
        let heard = changes
            .iter()
            .map(|c| (c.meter.0, c.amount.to_string(), c.hold.is_some()));
        self.0.lock().extend(heard);
    }
}

#[test]
fn a_quota_name_goes_from_free_to_reserved_to_free_to_committed() {
    runtime().block_on(async {
        let heard = Arc::new(Heard::default());
        let meters = [meter(1, "sum", Aggregation::Sum)];
        let mut world = World::with(2, &meters, Options::default(), Arc::clone(&heard) as _);
        let reserve = Record::Reserved(reservation(7));
        let ask = |record: QuotaRecord| {
            let aggregator = Arc::clone(&world.aggregator);
            async move { aggregator.quota(record).await.unwrap() }
        };
        let QuotaOutcome::Written(first) = ask(quota(&reserve, Expect::Free, None)).await else {
            panic!()
        };
        let QuotaOutcome::Occupied(known) = ask(quota(&reserve, Expect::Free, None)).await else {
            panic!()
        };
        assert_eq!(
            (known.position, known.digest),
            (first, 7),
            "the body's hash of what stands there"
        );
        assert_eq!(world.aggregator.open_reservations().await.unwrap().len(), 1);

        let release = Record::Released {
            at_us: 6,
            expired: false,
            reservation: reservation(7),
        };
        let wrong = ask(quota(&release, Expect::At(Position(first.0 + 1)), None)).await;
        assert!(matches!(wrong, QuotaOutcome::Occupied(_)));
        assert!(matches!(
            ask(quota(&release, Expect::At(first), None)).await,
            QuotaOutcome::Written(_)
        ));
        world.aggregator.checkpoint().await.unwrap();
        assert!(world.aggregator.open_reservations().await.unwrap().is_empty());

        let QuotaOutcome::Written(second) = ask(quota(&reserve, Expect::Free, None)).await else {
            panic!()
        };
        world.crash();
        let open = world.aggregator.open_reservations().await.unwrap();
        assert_eq!(decode(&open[0]), Ok(reserve), "reservations survive a restart");

        let commit = Record::Committed {
            reservation: reservation(7),
            event: committed(),
        };
        let hold: Hold = Arc::new(5u8);
        let done = world
            .aggregator
            .quota(quota(&commit, Expect::At(second), Some(hold)))
            .await
            .unwrap();
        assert!(matches!(done, QuotaOutcome::Written(_)));
        assert!(world.aggregator.open_reservations().await.unwrap().is_empty());
        assert_eq!(world.sum("sum", &["c"]).await, Some(quantity("3")));
        assert_eq!(
            heard.0.lock().as_slice(),
            [(1, "3".to_owned(), true)],
            "with the hold, once"
        );

        let found = world
            .aggregator
            .lookup(vec![
                KEY.name(TENANT, QUOTA_SOURCE, "r1"),
                KEY.name(TENANT, "x", "y"),
            ])
            .await;
        let found = found.unwrap();
        assert!(matches!(
            decode(&found[0].as_ref().unwrap().record),
            Ok(Record::Committed { .. })
        ));
        assert_eq!(found[1], None);
        let name = KEY.name(TENANT, QUOTA_SOURCE, "r1");
        let voided = world
            .aggregator
            .correct(name, Correction::Void, at(70))
            .await
            .unwrap()
            .unwrap();
        let Ok(Record::Void { before, .. }) = decode(&voided.record) else {
            panic!()
        };
        assert_eq!(before, committed(), "a granted event keeps its grant");
        let found = world.aggregator.lookup(vec![name]).await.unwrap();
        let first = found[0].as_ref().unwrap().first.as_deref();
        assert_eq!(
            decode(first.unwrap()),
            Ok(commit),
            "and its reservation is told still"
        );
        assert_eq!(heard.0.lock().last(), Some(&(1, "-3".to_owned(), false)));
    });
}
