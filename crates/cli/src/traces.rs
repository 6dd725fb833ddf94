//! Traces of runs, over OTLP, where `OTEL_EXPORTER_OTLP_ENDPOINT` asks for them.
//!
//! A run is one trace, whichever daemons it went through: the IDs are made from what the store remembers of it, so that each
//! daemon comes to the same ones.
//!
//! ```text
//! run default/seed                 from its claim to its end
//! ├─ start                         from its claim to the program's start
//! ├─ taken over                    where its daemon died: when another one went on with it
//! └─ program                       from the program's start to its end
//!
//! restore default/seed             a trace of its own, linked to the run's: an object got the outcome
//! ```

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use oncelet_controller::{Step, Steps};
use oncelet_core::{Fingerprint, RunRecord, RunState};
use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::SpanExporter as OtlpExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter, SpanLinks};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::runs::times;

/// How many steps are sent at once, at most.
const BATCH: usize = 256;
/// How long the end of the daemon waits for what is not sent yet.
const PATIENCE: Duration = Duration::from_secs(5);

/// The steps of runs on their way to a collector.
pub(crate) struct Traces(Option<(JoinHandle<()>, CancellationToken)>);

impl Traces {
    /// Sends what the steps tell, where the environment says to whom.
    pub(crate) fn begin() -> Result<(Self, Steps)> {
        let asked = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
        if asked.iter().all(|name| std::env::var_os(name).is_none_or(|value| value.is_empty())) {
            return Ok((Self(None), Steps::default()));
        }
        let mut exporter = OtlpExporter::builder().with_http().build().context(
            "traces cannot be sent as OTEL_EXPORTER_OTLP_ENDPOINT says (http:// and http/protobuf are spoken)",
        )?;
        let resource = Resource::builder().with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", Uuid::new_v4().to_string()),
        ]);
        let named = std::env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty());
        let resource = if named { resource } else { resource.with_service_name("oncelet") };
        exporter.set_resource(&resource.build());
        let (steps, told) = Steps::told();
        let end = CancellationToken::new();
        Ok((Self(Some((tokio::spawn(send(exporter, told, end.clone())), end))), steps))
    }

    /// Waits until everything is sent, for a while.
    pub(crate) async fn end(self) {
        let Some((sending, end)) = self.0 else { return };
        end.cancel();
        if tokio::time::timeout(PATIENCE, sending).await.is_err() {
            tracing::warn!("the last traces were not sent: the collector does not take them");
        }
    }
}

async fn send(exporter: OtlpExporter, mut told: UnboundedReceiver<Step>, end: CancellationToken) {
    let mut steps = Vec::new();
    let mut is_lost = false;
    loop {
        let received = tokio::select! {
            // Cancel-safe: what is not received stays where it is.
            received = told.recv_many(&mut steps, BATCH) => received,
            () = end.cancelled(), if !told.is_closed() => {
                told.close();
                continue;
            }
        };
        if received == 0 {
            return;
        }
        let spans = steps.drain(..).flat_map(spans).collect();
        match exporter.export(spans).await {
            Ok(()) => is_lost = false,
            // Once, not for each run.
            Err(error) if !is_lost => {
                tracing::warn!(%error, "traces are lost: the collector does not take them");
                is_lost = true;
            }
            Err(_) => {}
        }
    }
}

fn spans(step: Step) -> Vec<SpanData> {
    match step {
        Step::Ended { run } => ended(&run),
        Step::TakenOver { run, at } => {
            let mut span = Ids::of(&run).child("taken over", &Uuid::new_v4().to_string());
            (span.start_time, span.end_time) = (at.into(), at.into());
            vec![span]
        }
        Step::Restored { run, from, to } => {
            let own = Ids::of_text(&Uuid::new_v4().to_string());
            let mut span = own.root(format!("restore {}", run.key.name));
            (span.start_time, span.end_time) = (from.into(), to.into());
            span.attributes = attributes(&run);
            span.links = SpanLinks::default();
            span.links.links.push(Link::new(Ids::of(&run).context(), Vec::new(), 0));
            vec![span]
        }
    }
}

/// A run that is over, with its phases.
fn ended(run: &RunRecord) -> Vec<SpanData> {
    let RunState::Ended { outcome, finished_at, .. } = &run.state else { return Vec::new() };
    let ids = Ids::of(run);
    let mut whole = ids.root(format!("run {}", run.key.name));
    (whole.start_time, whole.end_time) = (run.claimed_at.into(), (*finished_at).into());
    whole.attributes = attributes(run);
    whole.attributes.push(KeyValue::new("oncelet.run.state", run.state.name()));
    whole.attributes.extend(outcome.exit_code().map(|code| KeyValue::new("process.exit.code", code)));
    if outcome.exit_code() != Some(0) {
        let why = match crate::runs::message(&run.state) {
            "" => outcome.exit_code().map(|code| format!("exit code {code}")).unwrap_or_default(),
            message => message.to_owned(),
        };
        whole.status = Status::error(why);
    }
    let mut spans = vec![whole];
    let mut phase = |name: &'static str, from: Timestamp, to: Timestamp| {
        let mut span = ids.child(name, name);
        (span.start_time, span.end_time) = (from.into(), to.into());
        spans.push(span);
    };
    if let (Some(started), Some(finished)) = times(&run.state) {
        phase("start", run.claimed_at, started);
        phase("program", started, finished);
    }
    spans
}

fn attributes(run: &RunRecord) -> Vec<KeyValue> {
    vec![
        KeyValue::new("oncelet.run.id", run.id.0),
        KeyValue::new("oncelet.run.name", run.key.name.to_string()),
        KeyValue::new("oncelet.run.attempt", i64::from(run.attempt)),
        KeyValue::new("container.id", run.container_id.clone()),
        KeyValue::new("container.name", run.container_name.clone()),
        // Arguments and environment may hold what is nobody's business.
        KeyValue::new("process.command", run.program.command.clone()),
    ]
}

/// The IDs of one trace, the same for the same text.
struct Ids {
    text: String,
    trace: TraceId,
    root: SpanId,
}

impl Ids {
    fn of(run: &RunRecord) -> Self {
        Self::of_text(&format!("{} {} {}", run.key.digest(), run.claimed_at.as_nanosecond(), run.attempt))
    }

    fn of_text(text: &str) -> Self {
        Self { text: text.to_owned(), trace: TraceId::from(number(text)), root: span_id(&format!("{text} root")) }
    }

    fn context(&self) -> SpanContext {
        context(self.trace, self.root)
    }

    fn root(&self, name: String) -> SpanData {
        span(name, self.context(), SpanId::INVALID)
    }

    fn child(&self, name: &'static str, unique: &str) -> SpanData {
        let id = span_id(&format!("{} {unique}", self.text));
        span(name.to_owned(), context(self.trace, id), self.root)
    }
}

fn context(trace: TraceId, span: SpanId) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default())
}

fn span(name: String, span_context: SpanContext, parent_span_id: SpanId) -> SpanData {
    SpanData {
        span_context,
        parent_span_id,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: name.into(),
        start_time: std::time::UNIX_EPOCH,
        end_time: std::time::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("oncelet").build(),
    }
}

fn number(text: &str) -> u128 {
    let digest = Fingerprint::of_bytes(text.as_bytes()).to_string();
    // A digest is longer than this, in hexadecimal digits.
    digest.get(..32).and_then(|digits| u128::from_str_radix(digits, 16).ok()).unwrap_or(1)
}

fn span_id(text: &str) -> SpanId {
    let [one, two, three, four, five, six, seven, eight, ..] = number(text).to_be_bytes();
    SpanId::from_bytes([one, two, three, four, five, six, seven, eight])
}
