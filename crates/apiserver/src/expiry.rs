//! The end of events: an hour after they were last written they go, as those of a kube-apiserver do.
//!
//! When each was written is not remembered. Versions only rise, so it is enough to know how far they had come at each minute of
//! the last hour: an event whose version is no newer than that of an hour ago has not been written since.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::app::App;
use crate::builtin::EVENTS;
use crate::handlers;
use crate::meta::At;
use crate::storage::Stored;

/// How often it is looked.
pub(crate) const LOOK: Duration = Duration::from_mins(1);
/// As by default in a kube-apiserver.
const LIFE: SignedDuration = SignedDuration::from_hours(1);
/// So many go at a time, so that those who watch anything can follow.
const BATCH: usize = 256;
const PAUSE: Duration = Duration::from_millis(50);

/// How far versions had come, and when.
#[derive(Default)]
pub(crate) struct Expiry {
    marks: VecDeque<(Timestamp, u64)>,
}

impl Expiry {
    /// Lets go what has outlived its time.
    pub(crate) async fn sweep(&mut self, app: &App) {
        let now = app.now();
        let events = app.store.list(EVENTS, None);
        let old: Vec<Arc<Stored>> = if self.marks.is_empty() {
            // Those that were kept across a restart say themselves how old they are.
            events.objects.into_iter().filter(|event| is_over(written(&event.value(), now), now)).collect()
        } else {
            let horizon = self.horizon(now);
            events.objects.into_iter().filter(|event| horizon.is_some_and(|horizon| event.version <= horizon)).collect()
        };
        self.mark(now, events.version);
        for (index, event) in old.iter().enumerate() {
            if index > 0 && index % BATCH == 0 {
                tokio::time::sleep(PAUSE).await;
            }
            handlers::expire(app, &EVENTS.into(), event);
        }
    }

    /// How far versions had come an hour ago, at least.
    fn horizon(&mut self, now: Timestamp) -> Option<u64> {
        for (at, _) in &mut self.marks {
            // The clock was ahead: nothing gets more than an hour by that.
            *at = now.min(*at);
        }
        while self.marks.get(1).is_some_and(|(at, _)| is_over(*at, now)) {
            self.marks.pop_front();
        }
        self.marks.front().filter(|(at, _)| is_over(*at, now)).map(|(_, version)| *version)
    }

    fn mark(&mut self, now: Timestamp, version: u64) {
        // However often it is looked: so many marks are enough.
        let is_due = self.marks.back().is_none_or(|(at, _)| now.duration_since(*at).unsigned_abs() >= LOOK);
        if is_due {
            self.marks.push_back((now, version));
        }
    }
}

fn is_over(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at) >= LIFE
}

/// When an event was last written, as far as it says so; at the latest now.
fn written(event: &Value, now: Timestamp) -> Timestamp {
    let metadata = event.at("metadata");
    let booked = metadata.at("managedFields").as_array().into_iter().flatten().map(|entry| entry.at("time"));
    let told = [
        metadata.at("creationTimestamp"),
        event.at("firstTimestamp"),
        event.at("lastTimestamp"),
        event.at("eventTime"),
        event.at("series").at("lastObservedTime"),
    ];
    let times = booked.chain(told).filter_map(|time| time.as_str()?.parse::<Timestamp>().ok());
    times.max().map_or(now, |last| last.min(now))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicI64, Ordering};

    use axum::body::Body;
    use futures::StreamExt;
    use http::{Request, header};
    use http_body_util::BodyExt;
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::app::default_namespace;
    use crate::auth::Token;
    use crate::storage::{ObjectFile, Store};

    const PATH: &str = "/api/v1/namespaces/default/events";

    /// A server with a clock of its own, set to a minute.
    macro_rules! clock {
        ($minute:ident, $clock:ident) => {
            static $minute: AtomicI64 = AtomicI64::new(0);
            let $clock = || Timestamp::from_second(1_800_000_000 + 60 * $minute.load(Ordering::Relaxed)).unwrap();
        };
    }

    fn app(store: Store, clock: fn() -> Timestamp) -> Arc<App> {
        let token = Token::new("secret".to_owned());
        let app = App::new(store, token, Vec::new(), Vec::new(), clock, CancellationToken::new());
        app.seed("", "v1", "namespaces", default_namespace()).unwrap();
        Arc::new(app)
    }

    async fn ask(app: &Arc<App>, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, "Bearer secret")
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(if body.is_null() { String::new() } else { body.to_string() }))
            .unwrap();
        let response = Arc::clone(app).handle(request).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn make(app: &Arc<App>, name: &str) {
        let event = json!({"metadata": {"name": name}, "involvedObject": {"namespace": "default", "name": "x"},
            "reason": "Told", "message": "something", "type": "Normal"});
        assert_eq!(ask(app, "POST", PATH, &event).await.0, 201);
    }

    async fn names(app: &Arc<App>) -> Vec<String> {
        let (_, list) = ask(app, "GET", PATH, &Value::Null).await;
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    #[tokio::test]
    async fn an_event_goes_an_hour_after_it_was_last_written_and_watchers_are_told() {
        clock!(MINUTE, clock);
        let app = app(Store::new(1000), clock);
        let mut expiry = Expiry::default();
        make(&app, "once").await;
        make(&app, "twice").await;
        ask(&app, "POST", "/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "old"}})).await;
        let (_, before) = ask(&app, "GET", PATH, &Value::Null).await;
        let version = before["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let mut ends = BTreeMap::new();
        for minute in 0..=130 {
            MINUTE.store(minute, Ordering::Relaxed);
            if minute == 40 {
                ask(&app, "PATCH", &format!("{PATH}/twice"), &json!({"count": 2})).await;
            }
            expiry.sweep(&app).await;
            assert!(expiry.marks.len() <= 62, "{} marks", expiry.marks.len());
            let there = names(&app).await;
            for gone in ["once", "twice"].into_iter().filter(|name| !there.iter().any(|it| it == name)) {
                ends.entry(gone).or_insert(minute);
            }
        }
        assert_eq!(ends, BTreeMap::from([("once", 60), ("twice", 100)]));
        let path = format!("{PATH}?watch=true&resourceVersion={version}");
        let request = Request::get(path).header(header::AUTHORIZATION, "Bearer secret").body(Body::empty()).unwrap();
        let response = Arc::clone(&app).handle(request).await;
        let told: Vec<(Value, Value)> = response
            .into_body()
            .into_data_stream()
            .take(3)
            .map(|line| serde_json::from_slice::<Value>(&line.unwrap()).unwrap())
            .map(|told| (told["type"].clone(), told["object"]["metadata"]["name"].clone()))
            .collect()
            .await;
        let told: Vec<_> = told.iter().map(|(kind, name)| (kind.as_str().unwrap(), name.as_str().unwrap())).collect();
        assert_eq!(told, [("MODIFIED", "twice"), ("DELETED", "once"), ("DELETED", "twice")]);
        let (code, _) = ask(&app, "GET", "/api/v1/namespaces/default/configmaps/old", &Value::Null).await;
        assert_eq!(code, 200, "nothing but events expires");
    }

    #[tokio::test]
    async fn a_clock_that_goes_back_keeps_no_event_for_more_than_an_hour() {
        clock!(MINUTE, clock);
        let app = app(Store::new(1000), clock);
        let mut expiry = Expiry::default();
        MINUTE.store(60 * 24 * 365, Ordering::Relaxed);
        make(&app, "a").await;
        expiry.sweep(&app).await;
        for minute in 0..60 {
            MINUTE.store(minute, Ordering::Relaxed);
            expiry.sweep(&app).await;
            assert_eq!(names(&app).await, ["a"], "at {minute}");
        }
        MINUTE.store(60, Ordering::Relaxed);
        expiry.sweep(&app).await;
        assert!(names(&app).await.is_empty());
    }

    #[tokio::test]
    async fn many_events_come_and_go_and_nothing_stays() {
        clock!(MINUTE, clock);
        let app = app(Store::new(1000), clock);
        let mut expiry = Expiry::default();
        tokio::time::pause();
        for hour in 0..3 {
            for number in 0..1000 {
                make(&app, &format!("a-{hour}-{number}")).await;
            }
            for minute in 0..=60 {
                MINUTE.store(hour * 61 + minute, Ordering::Relaxed);
                expiry.sweep(&app).await;
            }
            assert!(names(&app).await.is_empty());
        }
        assert!(expiry.marks.len() <= 62);
    }

    #[tokio::test]
    async fn events_that_are_kept_expire_across_restarts_however_short_each_run_is() {
        clock!(MINUTE, clock);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("objects.db");
        let open = async || {
            let (file, objects) = ObjectFile::open(&path).await.unwrap();
            app(Store::kept(1000, file, objects), clock)
        };
        let first = open().await;
        make(&first, "a").await;
        first.store.close().await;
        // Each of these runs is much shorter than an event's life.
        let mut seen = Vec::new();
        for minute in (5..=130).step_by(25) {
            MINUTE.store(minute, Ordering::Relaxed);
            let server = open().await;
            let mut expiry = Expiry::default();
            expiry.sweep(&server).await;
            expiry.sweep(&server).await;
            seen.push(!names(&server).await.is_empty());
            server.store.close().await;
        }
        assert_eq!(seen, [true, true, true, false, false, false]);
    }

    #[test]
    fn an_event_is_as_old_as_the_newest_time_in_it_and_none_is_of_the_future() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-01-01T12:00:00Z");
        let event = json!({"metadata": {"creationTimestamp": "2026-01-01T10:00:00Z",
            "managedFields": [{"time": "2026-01-01T11:00:00Z"}]}, "eventTime": "2026-01-01T10:30:00.000000Z", "lastTimestamp": null});
        assert_eq!(written(&event, now), at("2026-01-01T11:00:00Z"));
        assert_eq!(written(&json!({"lastTimestamp": "2099-01-01T00:00:00Z"}), now), now);
        assert_eq!(written(&json!({"lastTimestamp": "nonsense", "metadata": 1}), now), now);
    }
}
