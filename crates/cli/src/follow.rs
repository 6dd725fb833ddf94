//! What a follower does. It follows *one run*, from the moment it first sees it to its end: output and exit code are those of
//! that run, whatever becomes of the object. The rule is [`Tracker`]'s; [`Follow`] carries it out.

mod tracker;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use futures::StreamExt;
use jiff::Timestamp;
use kube::runtime::watcher::watch_object;
use oncelet_api::ContainerExec;
use tokio::time::Instant;

use self::tracker::{Look, Tracker};
use crate::ask::{self, Made, Request, Withdrawn};
use crate::clock::now;
use crate::objects::Objects;
use crate::progress::Line;
use crate::run_log::Printing;
use crate::signals::Signals;
use crate::stdin::{self, Input, Uploads};

pub(crate) use self::tracker::Run;

/// What a command ends with where the program's own exit code is not known.
const NOT_KNOWN: u8 = 125;
/// How long an object may stay without a status until it is said that no daemon looks at it.
const UNTOUCHED: Duration = Duration::from_secs(3);
/// How long between two tries to reach an API server that does not answer: at first, and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// How long taking a request back may take.
const WITHDRAWAL: Duration = Duration::from_secs(5);

/// Follows an object's run to its end.
pub(crate) struct Follow<'a> {
    objects: &'a Objects,
    name: &'a str,
    line: &'a Line,
    tracker: Tracker,
    /// The request that is behind it: made again where its object goes away, and taken back where nobody waits any more.
    request: Option<(&'a Request, Signals)>,
    /// A start that fails ends it.
    gives_up: bool,
    /// How long it may take, and until what.
    limit: Option<Limit>,
    /// When it began.
    since: Timestamp,
    /// The object is not the one of the beginning any more.
    asked_again: bool,
    printing: Option<Printing>,
    /// What was said last, so that nothing is said twice.
    told: String,
    /// It was said what the start waits for.
    has_waited: bool,
    /// The failed start for which another try was asked for.
    retried: Option<Timestamp>,
    /// What a recorded outcome is introduced with.
    memory: Option<&'static str>,
    /// The run that was seen going on: its end is no news from memory.
    live: Option<i64>,
    /// What the program reads from stdin, to be uploaded when the object waits for it.
    uploads: Option<Uploads<'a>>,
}

/// How long to wait.
struct Limit {
    wait: Duration,
    until: Instant,
    /// Only for the start.
    to_start: bool,
}

/// What the API server shows next.
enum Event {
    Object(Box<ContainerExec>),
    Gone,
    Disconnected(String),
    Untouched,
    TimedOut,
    Signal(u8),
}

impl<'a> Follow<'a> {
    /// Of an object that somebody else has made.
    pub(crate) fn object(objects: &'a Objects, name: &'a str, line: &'a Line) -> Self {
        Self {
            objects,
            name,
            line,
            tracker: Tracker::default(),
            request: None,
            gives_up: false,
            limit: None,
            since: now(),
            asked_again: false,
            printing: None,
            told: String::new(),
            has_waited: false,
            retried: None,
            memory: None,
            live: None,
            uploads: None,
        }
    }

    /// Of a request, which met `made`.
    pub(crate) fn request(
        objects: &'a Objects,
        request: &'a Request,
        made: &Made,
        signals: Signals,
        line: &'a Line,
    ) -> Self {
        let mut follow = Self::object(objects, request.name(), line);
        follow.gives_up = true;
        follow.request = Some((request, signals));
        if let Made::Found(object) = made {
            follow.tracker.container = request.container().map(str::to_owned);
            follow.memory = follow.tracker.found(object);
        }
        follow
    }

    /// Uploads `input` when the object waits for it.
    pub(crate) fn sending(mut self, input: Option<&'a Input>) -> Self {
        self.uploads = input.map(Uploads::of);
        self
    }

    /// Only a run after `run` counts, and a start of it that fails is an answer.
    pub(crate) fn after(mut self, run: Option<i64>) -> Self {
        self.tracker.after = run;
        self.gives_up = true;
        self
    }

    /// Ends after `wait`; with `to_start` only where the program has not started by then.
    pub(crate) fn within(mut self, wait: Option<Duration>, to_start: bool) -> Self {
        self.limit = wait.map(|wait| Limit { wait, until: Instant::now() + wait, to_start });
        self
    }

    /// Follows, and says what the command ends with.
    pub(crate) async fn run(mut self) -> Result<ExitCode> {
        let code = self.follow().await;
        self.line.end();
        code.map(ExitCode::from)
    }

    async fn follow(&mut self) -> Result<u8> {
        self.line.waits(self.name.to_owned());
        let mut pause = RECONNECT.0;
        loop {
            let objects = self.objects;
            let mut changes = std::pin::pin!(watch_object(objects.execs(), self.name));
            let untouched = Instant::now() + UNTOUCHED;
            let mut is_touched = false;
            loop {
                let (limit, signals) = (self.limit(), self.request.as_mut().map(|(_, signals)| signals));
                // What an arm waits for is kept where it is dropped.
                let event = tokio::select! {
                    change = changes.next() => match change {
                        Some(Ok(Some(object))) => Event::Object(Box::new(object)),
                        Some(Ok(None)) => Event::Gone,
                        Some(Err(error)) => Event::Disconnected(root_cause(&error)),
                        None => Event::Disconnected("the watch ended".to_owned()),
                    },
                    signal = next(signals) => Event::Signal(signal),
                    () = at(limit) => Event::TimedOut,
                    () = at((!is_touched).then_some(untouched)) => Event::Untouched,
                };
                match event {
                    Event::Object(object) => {
                        pause = RECONNECT.0;
                        is_touched |= object.status.as_ref().is_some_and(|status| status.state.is_some());
                        match self.upload(&object).await {
                            Ok(true) => continue,
                            Ok(false) => {}
                            // The daemon may have been started again: the next connection shows it.
                            Err(error) if stdin::may_pass(&error) => {
                                self.tell(&crate::output::one_line(&error));
                                break;
                            }
                            Err(error) => return Err(error),
                        }
                        if let Some(code) = self.take(&object).await? {
                            return Ok(code);
                        }
                    }
                    Event::Gone => match self.gone().await? {
                        Gone::AskedAgain => is_touched = false,
                        Gone::Over(code) => return Ok(code),
                        Gone::Unreachable(why) => {
                            self.tell(&why);
                            break;
                        }
                    },
                    Event::Disconnected(why) => {
                        // A watch that merely ends begins anew without a word.
                        if pause > RECONNECT.0 {
                            self.tell(&format!("the API server does not answer, and is asked again: {why}"));
                        }
                        break;
                    }
                    Event::Untouched => {
                        is_touched = true;
                        self.tell("no daemon has looked at it yet; does oncelet up or oncelet controller run?");
                    }
                    Event::TimedOut => return self.timed_out().await,
                    Event::Signal(code) => return self.interrupted(code).await,
                }
            }
            let (limit, signals) = (self.limit(), self.request.as_mut().map(|(_, signals)| signals));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                signal = next(signals) => return self.interrupted(signal).await,
                () = at(limit) => return self.timed_out().await,
            }
            pause = (pause * 2).min(RECONNECT.1);
            // The next try says what is wrong.
            let _ = self.objects.renew().await;
        }
    }

    /// Until when it may take, while that counts.
    fn limit(&self) -> Option<Instant> {
        let limit = self.limit.as_ref()?;
        (!limit.to_start || self.tracker.run().is_none()).then_some(limit.until)
    }

    /// Uploads the program's stdin where the object waits for it; tells whether it does.
    async fn upload(&mut self, object: &ContainerExec) -> Result<bool> {
        match &mut self.uploads {
            Some(uploads) => uploads.send_to(self.objects, object, self.line).await,
            None => Ok(false),
        }
    }

    /// What one look at the object comes to; an exit code where that was all.
    async fn take(&mut self, object: &ContainerExec) -> Result<Option<u8>> {
        let status = object.status.clone().unwrap_or_default();
        match self.tracker.look(&status) {
            Look::Nothing => {}
            Look::Waits { message } => self.wait_for(message),
            Look::EarlierFailure { at, message } => {
                if self.retried != Some(at) {
                    self.retried = Some(at);
                    self.tell(&format!("an earlier start failed ({message}); it is tried again now"));
                    // Should it not arrive, the daemon tries again by itself.
                    let _ = ask::retry(&self.objects.execs(), self.name, at).await;
                }
            }
            Look::FailedToStart { message, code } => {
                self.printing = None;
                if !self.gives_up {
                    self.wait_for(message);
                    return Ok(None);
                }
                self.line.say(&format!("error: {message}"));
                if self.request.is_some() {
                    return self.withdraw_failed(code).await;
                }
                self.line.say(&format!("{}: the daemon tries to start it again from time to time", self.name));
                return Ok(Some(code));
            }
            Look::Starts => self.line.waits(format!("{} is being started", self.name)),
            Look::Runs { run } => {
                self.live = Some(run.id);
                self.print(object, &run);
            }
            Look::Over { run, message, code } => {
                self.print(object, &run);
                self.introduce(&status);
                if let Some(code) = self.finish_printing().await {
                    return Ok(Some(code));
                }
                for text in [tracker::incomplete(&status), tracker::drift(&status), message].into_iter().flatten() {
                    self.line.say(&format!("{}: {text}", self.name));
                }
                return Ok(Some(code.unwrap_or(NOT_KNOWN)));
            }
            Look::Replaced { run, by, why } => {
                if let Some(code) = self.finish_printing().await {
                    return Ok(Some(code));
                }
                let new = by.map_or_else(|| "what runs next".to_owned(), |by| format!("run {by}, the new one"));
                self.line.say(&format!(
                    "{}: {why}, so the end of run {} is not seen here; it is recorded (oncelet runs show {}), and {new} is \
                     followed by: oncelet wait {}",
                    self.name, run.id, run.id, self.name
                ));
                return Ok(Some(NOT_KNOWN));
            }
        }
        Ok(None)
    }

    /// Says what the start waits for.
    fn wait_for(&mut self, message: String) {
        if self.told != message {
            let hint = if self.request.is_some() && !self.has_waited { " (Ctrl-C withdraws the request)" } else { "" };
            self.line.say(&format!("{} waits: {message}{hint}", self.name));
            self.line.waits(format!("{} waits", self.name));
            (self.told, self.has_waited) = (message, true);
        }
    }

    /// Begins to print what the run writes.
    fn print(&mut self, object: &ContainerExec, run: &Run) {
        if self.printing.is_none() {
            self.line.runs(format!("{} runs", self.name));
            if let Some(text) = self.memory.filter(|text| *text == tracker::RUNS_ALREADY) {
                self.line.say(&format!("{}: {text}", self.name));
            }
            self.printing = Some(Printing::begin(self.objects, object, run, self.line));
        }
    }

    /// Waits until all that the run wrote is printed; an exit code where a signal does not let it.
    async fn finish_printing(&mut self) -> Option<u8> {
        let printing = self.printing.take()?;
        let signals = self.request.as_mut().map(|(_, signals)| signals);
        let printed = tokio::select! {
            printed = printing.finish() => printed,
            code = next(signals) => return Some(code),
        };
        if let Err(error) = printed {
            self.line.say(&format!("{}: warning: {}", self.name, crate::output::one_line(&error)));
        }
        None
    }

    /// Says that an outcome comes from memory.
    fn introduce(&self, status: &oncelet_api::ContainerExecStatus) {
        let started = status.startup_timestamp.as_ref().map(|at| at.0);
        // What our own request started before it was made again is no memory.
        let is_ours = self.asked_again && started.is_none_or(|started| started >= self.since);
        let is_known = self.memory == Some(tracker::RAN_BEFORE) || status.restored == Some(true);
        if is_known && !is_ours && self.live.is_none() && self.memory != Some(tracker::RUNS_ALREADY) {
            let at = |at: Option<Timestamp>| at.map_or_else(|| "a time not known".to_owned(), |at| format!("{at:.0}"));
            let finished = status.finish_timestamp.as_ref().map(|at| at.0);
            self.line.say(&format!(
                "{}: it ran before, from {} to {}; nothing was started",
                self.name,
                at(started),
                at(finished)
            ));
        }
    }

    /// The object is gone: a request is made again.
    async fn gone(&mut self) -> Result<Gone> {
        let Some((request, _)) = &self.request else {
            let run = self
                .tracker
                .run()
                .map(|run| format!("; its run goes on and stays recorded: oncelet runs show {}", run.id));
            bail!("ContainerExec {} was deleted{}", self.name, run.unwrap_or_default());
        };
        match request.make_again().await {
            Ok(Made::Taken) => {
                self.line.say(&format!("{}: somebody has asked for it in another container since", self.name));
                Ok(Gone::Over(NOT_KNOWN))
            }
            Ok(Made::New | Made::Found(_)) => {
                self.asked_again = true;
                self.tell("its object was deleted, or the daemon was restarted: it is asked for again");
                Ok(Gone::AskedAgain)
            }
            Err(error) => match error.downcast_ref::<kube::Error>() {
                // The server is about to come back, or its namespaces are.
                Some(_) => Ok(Gone::Unreachable(format!(
                    "its object is gone, and cannot be made again yet: {}",
                    crate::output::one_line(&error)
                ))),
                None => Err(error),
            },
        }
    }

    async fn withdraw_failed(&mut self, code: u8) -> Result<Option<u8>> {
        match self.withdraw().await {
            // It was tried again meanwhile, and that went well.
            Some(Withdrawn::TooLate) => {
                self.tell("it was tried again meanwhile, and is being started");
                self.tracker.forget_failure();
                Ok(None)
            }
            Some(Withdrawn::BeforeTheStart) => Ok(Some(code)),
            Some(Withdrawn::NotOurs) => {
                self.line.say(&format!(
                    "{}: its object was not made by oncelet exec and stays, so the daemon tries again from time to time",
                    self.name
                ));
                Ok(Some(code))
            }
            None => {
                self.line.say(&format!("{}: its object could not be removed, so the daemon may try again", self.name));
                Ok(Some(code))
            }
        }
    }

    async fn withdraw(&self) -> Option<Withdrawn> {
        let (request, _) = self.request.as_ref()?;
        tokio::time::timeout(WITHDRAWAL, request.withdraw()).await.ok()?.ok()
    }

    async fn timed_out(&mut self) -> Result<u8> {
        let Some(limit) = &self.limit else { return Ok(NOT_KNOWN) };
        let state = if self.tracker.run().is_some() { "is not over" } else { "was not started" };
        let why = if self.told.is_empty() { String::new() } else { format!(": {}", self.told) };
        let text = format!("{}: it {state} after {:?}{why}", self.name, limit.wait);
        self.line.say(&text);
        if self.request.is_some() {
            self.give_up().await;
        }
        Ok(NOT_KNOWN)
    }

    async fn interrupted(&mut self, code: u8) -> Result<u8> {
        self.line.end();
        self.give_up().await;
        Ok(code)
    }

    /// Takes the request back, or says that it cannot be.
    async fn give_up(&self) {
        let goes_on = || {
            let run = self.tracker.run().map_or_else(|| self.name.to_owned(), |run| run.id.to_string());
            format!("the program continues; to watch it: oncelet logs {run} -f, or oncelet wait {}", self.name)
        };
        let text = if self.tracker.run().is_some() {
            goes_on()
        } else {
            match self.withdraw().await {
                Some(Withdrawn::BeforeTheStart) => "the request is withdrawn; the program was not started".to_owned(),
                Some(Withdrawn::TooLate) => format!("too late to withdraw the request: {}", goes_on()),
                Some(Withdrawn::NotOurs) => {
                    "its object was not made by oncelet exec and stays: the program starts as soon as \
                                             it can; kubectl delete cexec removes it"
                        .to_owned()
                }
                None => {
                    "the API server does not answer, so the request could not be withdrawn: the program may still start"
                        .to_owned()
                }
            }
        };
        self.line.say(&format!("{}: {text}", self.name));
    }

    /// Says something once.
    fn tell(&mut self, text: &str) {
        if self.told != text {
            self.line.say(&format!("{}: {text}", self.name));
            text.clone_into(&mut self.told);
        }
    }
}

enum Gone {
    AskedAgain,
    Over(u8),
    Unreachable(String),
}

async fn next(signals: Option<&mut Signals>) -> u8 {
    match signals {
        Some(signals) => signals.next().await,
        None => std::future::pending().await,
    }
}

/// What is at the bottom of an error: "Connection refused", and not by whom it was handed on.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
