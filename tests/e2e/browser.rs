//! A real browser: headless Chromium, through `chromedriver`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use oncelet_tests::process::{PATIENCE, Process, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

/// Why there is none here, if so.
pub(crate) fn problem() -> Option<String> {
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|it| it.status.success());
    (!there("chromedriver") || !there("chromium"))
        .then(|| "chromium and chromedriver are not on PATH (Debian: chromium, chromium-driver)".to_owned())
}

/// A window.
pub(crate) struct Browser {
    runtime: Runtime,
    client: Client,
    _driver: Process,
    _profile: TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("oncelet-browser-").tempdir().unwrap();
        let log = profile.path().join("chromedriver.log");
        let mut command = Command::new("chromedriver");
        command.arg("--port=0");
        let driver = Process::spawn("chromedriver", command, &log);
        let port = eventually("chromedriver says its port", || {
            let text = std::fs::read_to_string(&log).unwrap();
            Some(text.split("successfully on port ").nth(1)?.split('.').next()?.to_owned())
        });
        let runtime = Runtime::new().unwrap();
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            // Nothing but the page is to be asked for.
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--window-size=1280,900",
            &format!("--user-data-dir={}", profile.path().join("profile").display()),
        ];
        let wanted = json!({"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}});
        let client = runtime.block_on(async {
            let Value::Object(wanted) = wanted else { unreachable!() };
            ClientBuilder::new(HttpConnector::new())
                .capabilities(wanted)
                .connect(&format!("http://127.0.0.1:{port}"))
                .await
                .unwrap()
        });
        Self { runtime, client, _driver: driver, _profile: profile }
    }

    pub(crate) fn open(&self, url: &str) {
        self.runtime.block_on(self.client.goto(url)).unwrap();
    }

    /// What a JavaScript expression is.
    pub(crate) fn js(&self, expression: &str) -> Value {
        self.runtime.block_on(self.client.execute(&format!("return {expression}"), Vec::new())).unwrap()
    }

    /// Waits until a JavaScript expression is true.
    pub(crate) fn sees(&self, expression: &str) {
        self.runtime.block_on(async {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let seen = self.client.execute(&format!("return Boolean({expression})"), Vec::new()).await;
                if matches!(seen, Ok(Value::Bool(true))) {
                    return;
                }
                if Instant::now() > deadline {
                    let text = self.client.execute("return document.body.innerText", Vec::new()).await;
                    panic!("waited in vain: {expression} ({seen:?}); the page says:\n{}", text.unwrap_or_default());
                }
                // A page tells nobody outside when it has changed.
                sleep(Duration::from_millis(50)).await;
            }
        });
    }

    /// Waits until an element has this text in it.
    pub(crate) fn reads(&self, selector: &str, text: &str) {
        self.sees(&format!(
            "[...document.querySelectorAll({selector:?})].some((it) => it.innerText.includes({text:?}))"
        ));
    }

    /// Presses what is there; what has gone away meanwhile is not pressed.
    pub(crate) fn click(&self, selector: &str) {
        self.runtime.block_on(async {
            if let Ok(found) = self.client.find(Locator::Css(selector)).await {
                let _ = found.click().await;
            }
        });
    }

    /// Types into what has the focus, character for character.
    pub(crate) fn keys(&self, text: &str) {
        self.runtime.block_on(async {
            self.client.active_element().await.unwrap().send_keys(text).await.unwrap();
        });
    }

    pub(crate) fn press(&self, key: Key) {
        self.keys(&char::from(key).to_string());
    }

    /// Keeps a picture for people who want to look at it.
    pub(crate) fn picture(&self, name: &str) {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
        std::fs::create_dir_all(&dir).unwrap();
        let picture = self.runtime.block_on(self.client.screenshot()).unwrap();
        std::fs::write(Path::new(&dir).join(format!("{name}.png")), picture).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.client.clone().close());
    }
}
