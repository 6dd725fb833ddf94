use super::super::whose::{LABEL_OWNER, LABEL_SESSION, LABEL_STORE, owner};
use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use oncelet_api::ContainerStatus;
use oncelet_engine::ContainerId;
use std::collections::BTreeMap;

const US: Us<'_> = Us { store: Some("ours"), session: Some("this"), has_runs: false };
const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn object(mode: ContainerMode, image: &str) -> Container {
    let spec = ContainerSpec { mode, image: Some(image.to_owned()), ..ContainerSpec::default() };
    let mut container = Container::new("db", spec);
    container.metadata.namespace = Some("default".into());
    container
}

fn persistent() -> Container {
    object(ContainerMode::Persistent, "postgres:17")
}

fn made_by(object: &Container, state: ContainerState) -> EngineContainer {
    let labels = BTreeMap::from([
        (LABEL_OWNER.to_owned(), owner(object)),
        (LABEL_STORE.to_owned(), "ours".to_owned()),
        (LABEL_SPEC.to_owned(), declared(&object.spec)),
        (LABEL_KEY.to_owned(), lifecycle_key(&object.spec)),
    ]);
    EngineContainer { labels, ..stranger(state) }
}

fn stranger(state: ContainerState) -> EngineContainer {
    EngineContainer {
        id: ID.parse::<ContainerId>().unwrap(),
        name: "db".into(),
        image: "postgres:17".into(),
        image_id: None,
        created: jiff::Timestamp::UNIX_EPOCH,
        state,
        env: vec![],
        labels: BTreeMap::new(),
        ports: vec![],
        ip_address: None,
        hostname: String::new(),
        health: None,
    }
}

fn exited() -> ContainerState {
    ContainerState::Exited { exit_code: 0, finished_at: None }
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: None }
}

fn planned(object: &Container, found: Option<&EngineContainer>) -> Plan {
    plan(object, US, found)
}

fn refusal(plan: Plan) -> Trouble {
    match plan {
        Plan::Refuse(trouble) => trouble,
        other => panic!("{other:?} is no refusal"),
    }
}

/// `object`, after its container was seen started.
fn seen_started(mut object: Container, ready: &str) -> Container {
    let epoch = jiff::Timestamp::UNIX_EPOCH;
    object.status = Some(ContainerStatus {
        container_id: Some(ID.into()),
        startup_timestamp: Some(MicroTime(epoch)),
        conditions: vec![Condition {
            type_: condition::READY.into(),
            status: "False".into(),
            reason: ready.into(),
            message: String::new(),
            last_transition_time: Time(epoch),
            observed_generation: None,
        }],
        ..ContainerStatus::default()
    });
    object
}

#[test]
fn a_persistent_container_is_made_once_and_then_left_alone() {
    assert_eq!(planned(&persistent(), None), Plan::Create);
    assert_eq!(planned(&persistent(), Some(&made_by(&persistent(), running()))), Plan::Leave);
}

#[test]
fn a_stopped_one_is_started_for_a_new_object_and_not_in_a_circle() {
    let stopped = made_by(&persistent(), exited());
    assert_eq!(planned(&persistent(), Some(&stopped)), Plan::Start);
    assert_eq!(planned(&seen_started(persistent(), "Exited"), Some(&stopped)), Plan::Leave);
}

#[test]
fn another_declared_spec_makes_it_anew_and_names_the_fields() {
    let newer = object(ContainerMode::Persistent, "postgres:18");
    let found = made_by(&persistent(), running());
    assert_eq!(planned(&newer, Some(&found)), Plan::Recreate { why: "image changed".into() });
}

#[test]
fn how_a_container_is_looked_after_makes_no_other_one_of_it() {
    let mut other = persistent();
    other.spec.start = Some(true);
    other.spec.pull_policy = Some(oncelet_api::PullPolicy::Never);
    assert_eq!(planned(&other, Some(&made_by(&persistent(), running()))), Plan::Leave);
}

#[test]
fn a_given_lifecycle_key_is_all_that_counts() {
    let with_key = |image, key: &str| {
        let mut container = object(ContainerMode::Persistent, image);
        container.spec.lifecycle_key = Some(key.into());
        container
    };
    let found = made_by(&with_key("postgres:17", "one"), running());
    assert_eq!(planned(&with_key("postgres:18", "one"), Some(&found)), Plan::Leave);
    let why = "lifecycleKey changed".to_owned();
    assert_eq!(planned(&with_key("postgres:17", "two"), Some(&found)), Plan::Recreate { why });
}

#[test]
fn a_strangers_container_is_never_taken_stopped_or_removed() {
    let mut other = persistent();
    other.metadata.namespace = Some("other".into());
    let mut stopping = persistent();
    stopping.spec.stop = Some(true);
    for found in [stranger(running()), made_by(&other, running())] {
        for object in [persistent(), stopping.clone(), object(ContainerMode::Session, "postgres:17")] {
            let trouble = refusal(planned(&object, Some(&found)));
            assert_eq!(trouble.reason, "NameTaken");
            assert!(trouble.message.contains("mode: existing"), "{}", trouble.message);
            assert!(!removes(&object, US, &found));
        }
    }
}

#[test]
fn an_existing_one_is_never_made_started_or_removed() {
    let existing = object(ContainerMode::Existing, "postgres:17");
    assert_eq!(planned(&existing, Some(&stranger(exited()))), Plan::Leave);
    assert_eq!(refusal(planned(&existing, None)).reason, "ContainerNotFound");
    assert!(!removes(&existing, US, &stranger(running())));
}

#[test]
fn a_cleanup_one_is_never_made_and_goes_with_its_object() {
    let cleanup = object(ContainerMode::Cleanup, "postgres:17");
    assert_eq!(planned(&cleanup, Some(&stranger(exited()))), Plan::Leave);
    assert_eq!(refusal(planned(&cleanup, None)).reason, "ContainerNotFound");
    assert!(removes(&cleanup, US, &stranger(running())));
}

#[test]
fn a_session_container_is_of_one_object_and_one_session() {
    let mut object = object(ContainerMode::Session, "postgres:17");
    object.metadata.uid = Some("uid".into());
    let made_for = |uid: &str, session: &str| {
        let mut found = made_by(&object, running());
        found.labels.insert(LABEL_UID.into(), uid.into());
        found.labels.insert(LABEL_SESSION.into(), session.into());
        found
    };
    assert_eq!(planned(&object, Some(&made_for("uid", "this"))), Plan::Leave);
    assert!(removes(&object, US, &made_for("uid", "this")));
    assert!(matches!(planned(&object, Some(&made_for("earlier", "this"))), Plan::Recreate { .. }));
    let trouble = refusal(planned(&object, Some(&made_for("uid", "another"))));
    assert!(trouble.message.contains("another oncelet"), "{}", trouble.message);
    assert!(!removes(&object, US, &made_for("uid", "another")));
}

#[test]
fn a_delayed_start_makes_nothing_and_takes_what_runs() {
    let mut delayed = persistent();
    delayed.spec.start = Some(false);
    let trouble = refusal(planned(&delayed, None));
    assert_eq!(trouble.reason, START_DELAYED);
    assert!(trouble.is_wanted());
    assert_eq!(planned(&delayed, Some(&made_by(&delayed, running()))), Plan::Leave);
    assert_eq!(planned(&delayed, Some(&made_by(&delayed, exited()))), Plan::Leave);
}

#[test]
fn a_stop_makes_nothing_and_is_taken_back_by_its_removal() {
    let mut stopping = persistent();
    stopping.spec.stop = Some(true);
    assert_eq!(refusal(planned(&stopping, None)).reason, STOP_REQUESTED);
    assert_eq!(planned(&stopping, Some(&made_by(&stopping, running()))), Plan::Stop);
    assert_eq!(planned(&stopping, Some(&made_by(&stopping, exited()))), Plan::Leave);
    let stopped = seen_started(persistent(), STOP_REQUESTED);
    assert_eq!(planned(&stopped, Some(&made_by(&stopped, exited()))), Plan::Start);
}

/// `found`, as another oncelet would have made it, or a release that wrote no store.
fn of_store(store: Option<&str>, mut found: EngineContainer) -> EngineContainer {
    found.labels.remove(LABEL_STORE);
    found.labels.extend(store.map(|store| (LABEL_STORE.to_owned(), store.to_owned())));
    found
}

fn changed() -> Container {
    object(ContainerMode::Persistent, "postgres:18")
}

#[test]
fn a_container_of_another_store_is_not_taken_and_the_way_to_adopt_it_is_told() {
    let theirs = of_store(Some("theirs"), made_by(&persistent(), running()));
    for object in [persistent(), changed(), object(ContainerMode::Session, "postgres:17")] {
        let trouble = refusal(planned(&object, Some(&theirs)));
        assert_eq!(trouble.reason, "NameTaken");
        for part in ["theirs", "mode: existing", &format!("annotate --namespace default ctr db oncelet.dev/adopt={ID}")]
        {
            assert!(trouble.message.contains(part), "{}", trouble.message);
        }
        assert!(!removes(&object, US, &theirs));
    }
}

#[test]
fn who_says_that_it_was_theirs_gets_it_back() {
    let theirs = of_store(Some("theirs"), made_by(&persistent(), running()));
    let adopting = |mut object: Container, id: &str| {
        object.metadata.annotations = Some(BTreeMap::from([(oncelet_api::ADOPT_ANNOTATION.to_owned(), id.to_owned())]));
        object
    };
    assert_eq!(planned(&adopting(persistent(), ID), Some(&theirs)), Plan::Leave);
    assert!(matches!(planned(&adopting(changed(), ID), Some(&theirs)), Plan::Recreate { .. }));
    // That one and no other, and never what oncelet has not made for an object of this name.
    assert_eq!(refusal(planned(&adopting(persistent(), "all"), Some(&theirs))).reason, "NameTaken");
    assert_eq!(refusal(planned(&adopting(persistent(), ID), Some(&stranger(running())))).reason, "NameTaken");
    let mut elsewhere = adopting(persistent(), ID);
    elsewhere.metadata.namespace = Some("other".into());
    assert_eq!(refusal(planned(&elsewhere, Some(&theirs))).reason, "NameTaken");
}

#[test]
fn a_container_that_was_ours_is_used_and_never_removed_once_another_store_claims_it() {
    let theirs = of_store(Some("theirs"), made_by(&persistent(), running()));
    let shown = |object: Container| seen_started(object, "Running");
    let with_runs = Us { has_runs: true, ..US };
    assert_eq!(planned(&shown(persistent()), Some(&theirs)), Plan::Leave);
    assert_eq!(plan(&persistent(), with_runs, Some(&theirs)), Plan::Leave);
    assert_eq!(refusal(planned(&shown(changed()), Some(&theirs))).reason, "NameTaken");
    assert_eq!(refusal(plan(&changed(), with_runs, Some(&theirs))).reason, "NameTaken");
}

#[test]
fn what_an_earlier_release_made_is_used_and_made_anew_only_by_those_who_know_it() {
    let earlier = of_store(None, made_by(&persistent(), exited()));
    assert_eq!(planned(&persistent(), Some(&earlier)), Plan::Start);
    let message = refusal(planned(&changed(), Some(&earlier))).message;
    assert!(message.contains("earlier release") && message.contains("oncelet.dev/adopt"), "{message}");
    assert!(matches!(plan(&changed(), Us { has_runs: true, ..US }, Some(&earlier)), Plan::Recreate { .. }));
    assert!(matches!(planned(&seen_started(changed(), "Running"), Some(&earlier)), Plan::Recreate { .. }));
}

#[test]
fn without_a_store_nothing_is_made_and_nothing_removed() {
    let none = Us { store: None, ..US };
    assert_eq!(refusal(plan(&persistent(), none, None)).reason, "StoreUnavailable");
    let made = made_by(&persistent(), running());
    assert_eq!(refusal(plan(&changed(), none, Some(&made))).reason, "NameTaken");
}

#[test]
fn a_container_that_could_not_be_replaced_is_tried_again_only_for_a_changed_object() {
    let mut object = seen_started(changed(), RECREATE_FAILED);
    object.metadata.generation = Some(1);
    object.status.as_mut().unwrap().observed_generation = Some(1);
    let found = made_by(&persistent(), running());
    assert_eq!(refusal(planned(&object, Some(&found))).reason, RECREATE_FAILED);
    object.metadata.generation = Some(2);
    assert!(matches!(planned(&object, Some(&found)), Plan::Recreate { .. }));
}
