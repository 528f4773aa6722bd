//! What the control store promises, with its directory and keys.
#![expect(
    clippy::unwrap_used,
    reason = "a contract suite panics where a promise is broken"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use turnpike_domain::catalog::{Customer, Phase, Plan, Subscription};
use turnpike_domain::identity::TenantId;
use turnpike_domain::money::Currency;
use turnpike_domain::port::control::{
    Answer, ApiKeys, AuditFilter, AuditNote, Change, Claim, ControlStore, Decision, Effect, Idempotent,
    PageAfter, SecurityEvent, SubscriptionFilter,
};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{TimeRange, Timestamp};

const TENANT: TenantId = TenantId::DEFAULT;

/// A change by `contract`, with an idempotency key if there is one: (key, request).
pub fn change(tenant: TenantId, idempotency: Option<(&str, &str)>) -> Change {
    Change {
        tenant,
        actor: "contract".into(),
        request_id: "request".into(),
        at: Timestamp::from_minute(29_000_000),
        recorded_at: Timestamp::from_minute(29_000_000),
        idempotency: idempotency.map(|(key, request)| Idempotent {
            key: key.to_owned(),
            request_hash: *blake3::hash(request.as_bytes()).as_bytes(),
        }),
    }
}

/// A decision with `effects` that answers with `answer`.
pub fn decision(effects: Vec<Effect>, answer: Value) -> Decision {
    Decision::changed(effects, AuditNote::new("contract.put", "contract"), 201, answer)
}

/// A customer with one subject.
pub fn customer(key: &str, subject: &str) -> Customer {
    Customer {
        key: key.to_owned(),
        name: key.to_owned(),
        email: None,
        currency: None,
        timezone: None,
        parent: None,
        parent_since: None,
        former_parents: Vec::new(),
        former_overrides: Vec::new(),
        former_grants: Vec::new(),
        subjects: vec![subject.to_owned()],
        suspended: false,
        metadata: std::collections::BTreeMap::new(),
        erased_at: None,
    }
}

/// A monthly subscription of `customer` to version 1 of `plan`.
pub fn subscription(id: &str, customer: &str, plan: &str, start: Timestamp) -> Subscription {
    Subscription {
        id: id.to_owned(),
        customer: customer.to_owned(),
        currency: Currency::USD,
        start,
        trial_end: None,
        timezone: "UTC".to_owned(),
        first: Phase {
            from: start,
            plan: plan.to_owned(),
            plan_version: 1,
            interval: turnpike_domain::catalog::Interval::Month,
            interval_count: 1,
            anchor: start,
            add_ons: Vec::new(),
        },
        later: Vec::new(),
        pauses: Vec::new(),
        past_due: false,
        ends_at: None,
        expires: false,
        billed_until: start,
    }
}

/// A plan without prices, at a version.
pub fn plan(key: &str, version: u32) -> Plan {
    Plan {
        key: key.to_owned(),
        name: format!("{key} {version}"),
        version,
        currency: Currency::USD,
        interval: turnpike_domain::catalog::Interval::Month,
        interval_count: 1,
        trial_days: 0,
        prices: Vec::new(),
        prices_by_currency: std::collections::BTreeMap::new(),
        entitlements: Vec::new(),
        minimum_commitment: None,
        credits: None,
    }
}

async fn put<S: ControlStore>(store: &S, tenant: TenantId, effects: Vec<Effect>) {
    let decide = Box::new(move |_: &dyn turnpike_domain::port::control::ControlState| {
        Ok(decision(effects, Value::Null))
    });
    store.change(change(tenant, None), decide).await.unwrap();
}

async fn audit_rows<S: ControlStore>(store: &S) -> usize {
    let page = PageAfter {
        after: None,
        rows: 10_000,
    };
    store
        .audit(TENANT, AuditFilter::default(), page)
        .await
        .unwrap()
        .len()
}

/// A change is in the directory when it is answered, raises the epoch, and leaves one audit entry.
pub async fn a_change_is_in_force_when_it_is_answered<S: ControlStore + Directory>(store: &S) {
    let (epoch, rows) = (store.epoch(), audit_rows(store).await);
    let effects = vec![Effect::Customer(customer("a", "a1")), Effect::Plan(plan("p", 1))];
    put(store, TENANT, effects).await;
    assert_eq!(store.customer_of_subject(TENANT, "a1").unwrap().key, "a");
    let catalog = store.catalog(TENANT);
    assert_eq!(catalog.current_plan("p").unwrap().version, 1);
    assert!(store.epoch() > epoch);
    assert_eq!(audit_rows(store).await, rows + 1);
    let version = catalog.version;
    put(store, TENANT, vec![Effect::Plan(plan("p", 2))]).await;
    assert_eq!(store.catalog(TENANT).version, version + 1);
    assert_eq!(store.catalog(TENANT).plan("p", 1).unwrap().name, "p 1");
}

/// A refused change, and one that the store cannot keep, leave nothing: no effect, no audit entry, no answer.
pub async fn what_fails_leaves_nothing<S: ControlStore + Directory>(store: &S) {
    put(
        store,
        TENANT,
        vec![Effect::Customer(customer("taken", "subject"))],
    )
    .await;
    let (epoch, rows) = (store.epoch(), audit_rows(store).await);
    let refuse = Box::new(|_: &dyn turnpike_domain::port::control::ControlState| {
        Err::<Decision, Problem>(Problem::new(Code::InUse, "no"))
    });
    let refused = store.change(change(TENANT, Some(("fails", "1"))), refuse).await;
    assert_eq!(refused.unwrap_err().code, Code::InUse);
    let twice = vec![
        Effect::Customer(customer("new", "n")),
        Effect::Customer(customer("thief", "subject")),
    ];
    let decide = Box::new(move |_: &dyn turnpike_domain::port::control::ControlState| {
        Ok(decision(twice, Value::Null))
    });
    let lost = store.change(change(TENANT, Some(("fails", "1"))), decide).await;
    assert_eq!(lost.unwrap_err().code, Code::AlreadyExists);
    assert_eq!((store.epoch(), audit_rows(store).await), (epoch, rows));
    assert!(store.customer(TENANT, "new").is_none());
    assert_eq!(store.customer_of_subject(TENANT, "subject").unwrap().key, "taken");
    // The idempotency key is free still: what failed is decided anew.
    let decide = Box::new(move |_: &dyn turnpike_domain::port::control::ControlState| {
        Ok(decision(
            vec![Effect::Customer(customer("new", "n"))],
            json!("done"),
        ))
    });
    let done = store
        .change(change(TENANT, Some(("fails", "1"))), decide)
        .await
        .unwrap();
    assert_eq!((done.body, done.repeated), (json!("done"), false));
}

/// A repeat answers as the call did first and does nothing; another request under the key is a conflict; another tenant
/// has its own keys.
pub async fn repeats_answer_as_first<S: ControlStore + Directory>(store: &S, other: TenantId) {
    let call = async |tenant, request: &str, key: &str| {
        let effects = vec![Effect::Customer(customer(key, key))];
        let decide = Box::new(move |state: &dyn turnpike_domain::port::control::ControlState| {
            let mut made = decision(effects, json!({ "epoch": state.epoch(), "secret": "shown" }));
            made.kept_answer = Some(json!({ "epoch": state.epoch() }));
            Ok(made)
        });
        store
            .change(change(tenant, Some(("once", request))), decide)
            .await
    };
    let first = call(TENANT, "request", "idem-1").await.unwrap();
    assert_eq!((first.status, first.repeated), (201, false));
    let rows = audit_rows(store).await;
    let again = call(TENANT, "request", "idem-2").await.unwrap();
    assert_eq!((again.status, again.repeated), (201, true));
    assert_eq!(again.body, json!({ "epoch": first.body["epoch"] }));
    assert!(store.customer(TENANT, "idem-2").is_none());
    assert_eq!(audit_rows(store).await, rows);
    let conflict = call(TENANT, "another", "idem-3").await.unwrap_err();
    assert_eq!(conflict.code, Code::IdempotencyConflict);
    assert!(!call(other, "another", "idem-3").await.unwrap().repeated);
}

/// A claimed key belongs to its request until it is given back or past its time, also when its call never ended; it never
/// meets another tenant's, and changes know of it.
pub async fn claims_hold_their_key<S: ControlStore + Directory>(store: &S, other: TenantId) {
    let call = |key: &str, request: &str| change(TENANT, Some((key, request))).idempotency.unwrap();
    let at = Timestamp::from_minute(1_000);
    let claim = async |tenant, key: &str, request: &str| store.claim(tenant, call(key, request), at).await;
    assert_eq!(claim(TENANT, "c", "1").await, Ok(Claim::Taken));
    assert_eq!(
        claim(other, "c", "2").await,
        Ok(Claim::Taken),
        "another tenant's key"
    );
    assert_eq!(store.kept_answer(TENANT, call("c", "1")).await, Ok(None));
    // Its call did not end: the repeat runs, another request is a conflict.
    assert_eq!(claim(TENANT, "c", "1").await, Ok(Claim::Taken));
    let conflict = Code::IdempotencyConflict;
    assert_eq!(claim(TENANT, "c", "2").await.unwrap_err().code, conflict);
    let decide = || {
        Box::new(|_: &dyn turnpike_domain::port::control::ControlState| Ok(decision(Vec::new(), json!(1))))
    };
    let changed = store.change(change(TENANT, Some(("c", "3"))), decide()).await;
    assert_eq!(changed.unwrap_err().code, conflict);
    store
        .settle(TENANT, "c".to_owned(), Some((200, json!({"n": 1}))))
        .await
        .unwrap();
    let answer = Answer {
        status: 200,
        body: json!({"n": 1}),
        repeated: true,
    };
    assert_eq!(claim(TENANT, "c", "1").await, Ok(Claim::Answered(answer.clone())));
    let kept = store.kept_answer(TENANT, call("c", "1")).await;
    assert_eq!(kept, Ok(Some(answer.clone())));
    // What was answered is not given back any more.
    store.settle(TENANT, "c".to_owned(), None).await.unwrap();
    assert_eq!(claim(TENANT, "c", "1").await, Ok(Claim::Answered(answer)));
    store.settle(other, "c".to_owned(), None).await.unwrap();
    assert_eq!(claim(other, "c", "4").await, Ok(Claim::Taken));
    // A test tenant's clock may stand long before the machine's, by which the key is kept.
    let mut kept_call = change(TENANT, Some(("kept", "1")));
    kept_call.at = Timestamp::EPOCH;
    store.change(kept_call, decide()).await.unwrap();
    assert_eq!(store.prune_claims(at).await, Ok(0));
    assert_eq!(store.prune_claims(Timestamp::MAX).await, Ok(2));
    assert_eq!(claim(TENANT, "c", "2").await, Ok(Claim::Taken));
    let repeat = store.change(change(TENANT, Some(("kept", "1"))), decide()).await;
    assert!(repeat.unwrap().repeated, "answers of changes stay");
}

/// Calls at once with one idempotency key take effect once and all get the same answer.
pub async fn concurrent_repeats_take_effect_once<S: ControlStore + Directory + 'static>(store: Arc<S>) {
    let rows = audit_rows(store.as_ref()).await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..32 {
        let store = Arc::clone(&store);
        calls.spawn(async move {
            let effects = vec![Effect::Customer(customer(
                &format!("racer-{n}"),
                &format!("racer-{n}"),
            ))];
            let decide = Box::new(move |_: &dyn turnpike_domain::port::control::ControlState| {
                Ok(decision(effects, json!(n)))
            });
            store
                .change(change(TENANT, Some(("race", "same"))), decide)
                .await
                .unwrap()
        });
    }
    let answers = calls.join_all().await;
    let bodies: BTreeSet<_> = answers.iter().map(|answer| answer.body.to_string()).collect();
    assert_eq!(bodies.len(), 1);
    assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1);
    let made = (0..32)
        .filter(|n| store.customer(TENANT, &format!("racer-{n}")).is_some())
        .count();
    assert_eq!((made, audit_rows(store.as_ref()).await), (1, rows + 1));
}

/// Pages hold every row once, also when rows are added and taken away between them.
pub async fn pages_are_stable<S: ControlStore + Directory>(store: &S, tenant: TenantId) {
    let keys: Vec<_> = (0..25).map(|n| format!("page-{n:02}")).collect();
    let start = Timestamp::from_minute(29_000_000);
    let mut effects: Vec<_> = keys
        .iter()
        .map(|key| Effect::Customer(customer(key, key)))
        .collect();
    effects.extend(
        keys.iter()
            .map(|key| Effect::Subscription(subscription(&format!("s-{key}"), key, "p", start))),
    );
    put(store, tenant, effects).await;
    let found = |from: &str, number| -> Vec<String> {
        let found = store.customers_from(tenant, from, number).into_iter();
        found.map(|customer| customer.key.clone()).collect()
    };
    assert_eq!(found("page-03", 4), keys[3..7], "itself is the first");
    assert_eq!(found("page-030", 2), keys[4..6]);
    assert_eq!(found("page-00", 25), keys);
    assert_eq!(found("page-24", 0), [""; 0]);
    let mut seen = Vec::new();
    let mut after = Some("page-".to_owned());
    for round in 0.. {
        let rows = store
            .list_customers(
                tenant,
                PageAfter {
                    after: after.clone(),
                    rows: 7,
                },
            )
            .await
            .unwrap();
        seen.extend(
            rows.iter()
                .map(|customer| customer.key.clone())
                .filter(|key| key.starts_with("page-")),
        );
        let Some(last) = rows.last().filter(|_| rows.len() == 7) else {
            break;
        };
        after = Some(last.key.clone());
        put(
            store,
            tenant,
            vec![Effect::Customer(customer(
                &format!("aaa-{round}"),
                &format!("aaa-{round}"),
            ))],
        )
        .await;
        put(
            store,
            tenant,
            vec![Effect::RemoveCustomer(format!("aaa-{round}"))],
        )
        .await;
    }
    assert_eq!(seen, keys);
    subscriptions_are_paged(store, tenant, &keys).await;
}

async fn subscriptions_are_paged<S: ControlStore>(store: &S, tenant: TenantId, keys: &[String]) {
    let mut listed = Vec::new();
    let mut after = Some("s-page-".to_owned());
    while let Some(from) = after.take() {
        let page = PageAfter {
            after: Some(from),
            rows: 4,
        };
        let rows = store
            .list_subscriptions(tenant, SubscriptionFilter::default(), page)
            .await
            .unwrap();
        after = rows.last().filter(|_| rows.len() == 4).map(|row| row.id.clone());
        listed.extend(rows.iter().map(|row| row.id.clone()));
    }
    assert_eq!(
        listed,
        keys.iter().map(|key| format!("s-{key}")).collect::<Vec<_>>()
    );
    let filter = SubscriptionFilter {
        customer: Some("page-03".to_owned()),
    };
    let one = store
        .list_subscriptions(
            tenant,
            filter,
            PageAfter {
                after: None,
                rows: 10,
            },
        )
        .await
        .unwrap();
    assert_eq!(
        one.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(),
        ["s-page-03"]
    );
}

/// The log is listed newest first, by page, through each filter; security events are counted together.
pub async fn the_audit_log_is_filtered_and_counted<S: ControlStore + Directory>(store: &S, tenant: TenantId) {
    for n in 0..5u32 {
        let mut change = change(tenant, None);
        // By the machine's clock, wherever the tenant's own stands.
        change.at = Timestamp::from_minute(1);
        change.recorded_at = Timestamp::from_minute(1_000 + n);
        change.actor = format!("actor-{}", n % 2).into();
        let action = if n == 4 { "planet.put" } else { "plan.put" };
        let note = AuditNote::new(action, format!("plan/{n}")).with_detail(json!({ "n": n }));
        let decide = Box::new(move |_: &dyn turnpike_domain::port::control::ControlState| {
            Ok(Decision::changed(Vec::new(), note, 200, Value::Null))
        });
        store.change(change, decide).await.unwrap();
    }
    let listed = async |filter: AuditFilter, after: Option<u64>, rows: usize| {
        let page = PageAfter {
            after: after.map(|id| id.to_string()),
            rows,
        };
        store.audit(tenant, filter, page).await.unwrap()
    };
    let numbers = |rows: &[turnpike_domain::port::control::AuditEntry]| -> Vec<u64> {
        rows.iter().filter_map(|row| row.detail["n"].as_u64()).collect()
    };
    let plans = AuditFilter {
        action: Some("plan".to_owned()),
        ..AuditFilter::default()
    };
    assert_eq!(numbers(&listed(plans.clone(), None, 100).await), [3, 2, 1, 0]);
    let first = listed(plans.clone(), None, 3).await;
    assert_eq!(numbers(&first), [3, 2, 1]);
    assert_eq!(numbers(&listed(plans.clone(), Some(first[2].id), 3).await), [0]);
    let actor = AuditFilter {
        actor: Some("actor-1".to_owned()),
        ..plans.clone()
    };
    assert_eq!(numbers(&listed(actor, None, 100).await), [3, 1]);
    let object = AuditFilter {
        object: Some("plan/2".to_owned()),
        ..AuditFilter::default()
    };
    assert_eq!(numbers(&listed(object, None, 100).await), [2]);
    let range = TimeRange::new(Timestamp::from_minute(1_001), Timestamp::from_minute(1_003));
    let timed = AuditFilter {
        range: Some(range),
        ..AuditFilter::default()
    };
    assert_eq!(numbers(&listed(timed, None, 100).await), [2, 1]);
    security_events_are_counted(store, tenant).await;
    store.prune_audit(Timestamp::from_minute(1_004)).await.unwrap();
    assert_eq!(numbers(&listed(AuditFilter::default(), None, 100).await), [4]);
}

async fn security_events_are_counted<S: ControlStore>(store: &S, tenant: TenantId) {
    for _ in 0..7 {
        store.note_security(SecurityEvent {
            tenant,
            action: "security.wrong_key",
            actor: "-".to_owned(),
            object: "GET /v1/meters".to_owned(),
            client: Some([192, 0, 2, 1].into()),
        });
    }
    store.flush_security().await.unwrap();
    store.flush_security().await.unwrap();
    let security = AuditFilter {
        action: Some("security".to_owned()),
        ..AuditFilter::default()
    };
    let page = PageAfter {
        after: None,
        rows: 100,
    };
    let noted = store.audit(tenant, security, page).await.unwrap();
    assert_eq!(noted.len(), 1);
    assert_eq!(noted[0].detail, json!({ "count": 7, "client": "192.0.2.1" }));
}

/// Two tenants with the same keys never see each other's.
pub async fn tenants_never_meet<S: ControlStore + Directory + ApiKeys>(store: &S, other: TenantId) {
    put(
        store,
        TENANT,
        vec![
            Effect::Customer(customer("same", "mine")),
            Effect::Plan(plan("mine", 1)),
        ],
    )
    .await;
    put(store, other, vec![Effect::Customer(customer("same", "theirs"))]).await;
    let start = Timestamp::from_minute(5);
    put(
        store,
        other,
        vec![Effect::Subscription(subscription("theirs", "same", "p", start))],
    )
    .await;
    assert!(store.customer_of_subject(TENANT, "theirs").is_none());
    assert!(store.customer_of_subject(other, "mine").is_none());
    assert!(store.catalog(other).current_plan("mine").is_none());
    assert!(store.subscription(TENANT, "theirs").is_none());
    assert!(store.subscriptions(TENANT, "same").is_empty());
    put(store, TENANT, vec![Effect::RemoveCustomer("same".to_owned())]).await;
    assert_eq!(store.customer(other, "same").unwrap().subjects, ["theirs"]);
    for key in store.keys(TENANT) {
        assert!(store.key(other, &key.id).is_none());
    }
}
