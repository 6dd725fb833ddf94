//! The page, in a real browser.

use fantoccini::key::Key;
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use oncelet_api::{ContainerExec, ContainerExecSpec};
use serde_json::Value;

use crate::browser::Browser;
use crate::process::{eventually, output};
use crate::world::{World, sh};

/// The address with the token, as people get it.
fn address(world: &World) -> String {
    world.page_address()
}

/// The name of a picture, one of each half.
fn picture(of: &str, world: &World) -> String {
    format!("{of}-{}", if world.is_embedded() { "up" } else { "controller" })
}

fn open(world: &World) -> Browser {
    let browser = Browser::start();
    browser.open(&address(world));
    browser.reads("#line", "live");
    browser
}

/// The row of an object.
fn row(world: &World, name: &str) -> String {
    format!(
        "[...document.querySelectorAll('.row')].find((it) => it.querySelector('.name').innerText === '{}/{name}')",
        world.namespace
    )
}

fn choose(world: &World, browser: &Browser, name: &str) {
    browser.sees(&row(world, name));
    // A real press of a button, where the row is now; it may be elsewhere a moment later.
    eventually(&format!("{name} is chosen"), || {
        let id = browser.js(&format!("{}?.id", row(world, name)));
        browser.click(&format!("#{}", id.as_str()?));
        let head = browser.js("document.querySelector('#detail h2')?.innerText");
        head.as_str()?.starts_with(name).then_some(())
    });
}

pub(crate) fn the_page_shows_what_goes_on_and_what_was_written(world: &mut World) {
    world.start();
    let db = world.container("db");
    let red = r"printf '\033[31mERROR\033[0m: no such table \033[1;38;5;208musers\033[0m\n' >&2";
    let mut bad = sh(&format!("echo migrating; {red}; printf 'done 10%%\\rdone 100%%\\n'; exit 3"));
    bad["env"] = serde_json::json!([{"name": "PGHOST", "value": "localhost"}]);
    world.run("migrate", &db, &bad);
    world.run("seed", &db, &sh("i=0; while [ $i -lt 3000 ]; do echo row $i; i=$((i+1)); done"));
    world.apply_exec(
        "watch",
        &db,
        &sh("echo one; while [ ! -e /data/go ]; do sleep 0.1; done; echo two; while [ ! -e /data/end ]; do sleep 0.1; done"),
    );
    world.wait("watch", "Started");

    // Nobody gets in without the token, and whoever has it need not know more.
    let browser = Browser::start();
    let address = address(world);
    let (page, token) = address.split_once('#').unwrap();
    browser.open(page);
    browser.sees("document.querySelector('#enter').open");
    browser.keys("token=of-somebody-else-entirely\n");
    browser.reads("#enter .bad", "oncelet page");
    assert_eq!(browser.js("document.querySelectorAll('.row').length"), 0);
    browser.keys(&format!("{page}#{token}\n"));
    browser.reads("#line", "live");
    let here = browser.js("location.href").as_str().unwrap().to_owned();
    assert!(!here.contains("token"), "the token stays in the address: {here}");

    // Failure is loud, success quiet, and the loud ones come first.
    let tones = |tone: &str| format!("{}?.classList.contains('{tone}')", row(world, "TOKEN"));
    for (name, tone) in [("migrate", "bad"), ("watch", "busy"), ("seed", "good")] {
        browser.sees(&tones(tone).replace("TOKEN", name));
    }
    browser.reads(".chip.bad", "Failed");
    choose(world, &browser, "migrate");
    browser.reads("#detail .state.bad", "exit 3");
    browser.reads("#detail .why", "migrate ran for this object in");
    browser.reads(".line.stderr", "ERROR: no such table users");
    assert_eq!(browser.js("document.querySelector('.line.stderr .front-1').innerText"), "ERROR");
    assert_eq!(browser.js("getComputedStyle(document.querySelector('.line.stderr .bold')).color"), "rgb(255, 135, 0)");
    browser.reads(".line.stdout", "done 100%");
    browser.sees("![...document.querySelectorAll('.line')].some((it) => it.innerText.includes('10%done'))");
    browser.picture(&picture("failed", world));
    browser.keys("2");
    browser.reads("#detail .env", "PGHOST");
    browser.reads("#detail .env", "localhost");
    browser.keys("4");
    browser.reads("#detail .entry", "Finished");

    // What goes on is followed, without a look at it.
    choose(world, &browser, "watch");
    browser.keys("1");
    browser.reads(".line.stdout", "one");
    browser.sees("document.querySelector('.log [type=checkbox]').checked");
    db.sh("touch /data/go").unwrap();
    browser.reads(".line.stdout", "two");
    db.sh("touch /data/end").unwrap();
    browser.sees(&tones("good").replace("TOKEN", "watch"));
    browser.reads("#detail .log .state", "2 lines");

    // Long output is there whole, is drawn only where it is seen, and is searched.
    choose(world, &browser, "seed");
    browser.reads("#detail .log .state", "3,000 lines");
    // Its end is shown first; whoever looks at its beginning is left there.
    browser.reads(".line", "row 2999");
    browser.js("document.querySelector('.lines').scrollTo(0, 0)");
    browser.reads(".line", "row 0");
    browser.sees("!document.querySelector('.log [type=checkbox]').checked");
    browser.keys("l");
    browser.keys("ROW 299\n");
    browser.reads(".found", "2 of 11 lines");
    browser.reads(".line.hit mark", "row 299");
    browser.reads(".line.hit", "row 2990");
    browser.sees("document.querySelectorAll('.line').length < 200");
    browser.press(Key::Escape);

    // Keys, light and dark.
    let before = browser.js("getComputedStyle(document.body).backgroundColor");
    browser.keys("t");
    assert_ne!(browser.js("getComputedStyle(document.body).backgroundColor"), before);
    browser.picture(&picture("dark", world));
    browser.keys("/");
    browser.keys("migr");
    browser.sees("document.querySelectorAll('.row').length === 1");
    browser.press(Key::Escape);
    browser.keys("c");
    browser.sees("document.querySelector('[data-kind=container]').ariaSelected === 'true'");

    // Nothing was asked of anybody else.
    let asked = browser.js("performance.getEntriesByType('resource').map((it) => it.name)");
    for name in asked.as_array().unwrap() {
        assert!(name.as_str().unwrap().starts_with(page), "{name} is elsewhere");
    }
}

fn confirm(browser: &Browser, title: &str) {
    browser.reads("#confirm h2", title);
    // It may not be in its place yet.
    eventually("it is confirmed", || {
        browser.click("#confirm .act");
        (browser.js("document.querySelector('#confirm').open") == false).then_some(())
    });
}

pub(crate) fn the_page_reruns_stops_and_forgets_after_asking(world: &mut World) {
    world.start();
    let db = world.container("db");
    let first = world.run("job", &db, &sh("echo run >> /data/runs.log"));
    let browser = open(world);
    choose(world, &browser, "job");

    // Asked, and not wanted after all.
    browser.keys("r");
    browser.reads("#confirm h2", "once more");
    browser.press(Key::Escape);
    browser.sees("!document.querySelector('#confirm').open");
    browser.keys("r");
    confirm(&browser, "once more");
    browser.reads("#detail .why", "the rerun");
    // The page may still show how the first one ended.
    eventually("the second run has ended", || {
        let status = world.status("job");
        (status["runId"] != first["runId"] && status["state"] == "Finished").then_some(())
    });
    browser.reads("#detail .state.good", "exit 0");
    assert_eq!(db.lines("/data/runs.log").len(), 2);

    world.apply_exec("long", &db, &sh("echo begun; sleep 7777"));
    world.wait("long", "Started");
    choose(world, &browser, "long");
    browser.reads(".line", "begun");
    browser.keys("s");
    confirm(&browser, "Stop");
    browser.reads("#detail .state.bad", "spec.stop");
    browser.picture(&picture("stopped", world));
    assert!(!db.sh("ps").unwrap().contains("sleep 7777"));

    // The object of a run that is forgotten asks for it again, as it does after oncelet runs forget.
    choose(world, &browser, "job");
    let latest = world.status("job")["runId"].clone();
    assert_ne!(latest, first["runId"]);
    browser.keys("x");
    confirm(&browser, "Forget");
    browser.sees("!document.querySelector('#detail .problem')?.innerText");
    eventually("the run is forgotten", || world.oncelet(&["runs", "show", &latest.to_string()]).is_err().then_some(()));
    world.delete("job");
    browser.sees(&format!("!{}", row(world, "job")));
}

pub(crate) fn the_page_goes_on_after_a_restart_and_shows_what_was_restored(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.run("seed", &db, &sh("echo seeded >> /data/runs.log"));
    let browser = open(world);
    choose(world, &browser, "seed");

    // The application and oncelet are started again. The tab has the token of the one before, which lets nobody in any more, and
    // says what to do.
    let before = address(world);
    before.split('/').nth(2).unwrap().clone_into(&mut world.page);
    world.kill();
    browser.reads("#line.bad", "oncelet");
    world.start();
    if !world.is_embedded() {
        world.delete("seed");
    }
    world.run("seed", &db, &sh("echo seeded >> /data/runs.log"));
    browser.reads("#enter .bad", "oncelet page --open");
    assert_eq!(browser.js("sessionStorage.getItem('token')"), Value::Null);
    // The new address in the same tab is enough.
    let after = address(world);
    assert_ne!(after, before);
    browser.open(&after);
    browser.reads("#line", "live");
    browser.sees("!document.querySelector('#enter').open");
    // And so is the file that a browser is started with.
    output(world.oncelet_command().env("BROWSER", "true").args(["page", "--open"])).unwrap();
    browser.js("sessionStorage.clear()");
    browser.open(&format!("file://{}", world.data_dir().join("page.html").display()));
    browser.reads("#line", "live");
    choose(world, &browser, "seed");
    browser.reads("#detail .state", "restored: exit 0");
    browser.reads("#detail .why", "seed was not started");
    browser.keys("3");
    browser.reads(".timeline .entry.quiet", "nothing was started");
    browser.reads(".timeline .entry", "exit 0");
    browser.picture(&picture("timeline", world));
    assert_eq!(db.lines("/data/runs.log").len(), 1);
}

pub(crate) fn the_page_works_with_five_thousand_objects(world: &mut World) {
    const COUNT: usize = 5000;
    world.start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(world.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let execs = Api::<ContainerExec>::namespaced(Client::try_from(config).unwrap(), &world.namespace);
        let spec = ContainerExecSpec {
            container_name: Some("nowhere".to_owned()),
            command: "/bin/true".to_owned(),
            ..ContainerExecSpec::default()
        };
        let create = |number: usize| {
            let (execs, exec) = (execs.clone(), ContainerExec::new(&format!("job-{number:04}"), spec.clone()));
            async move { execs.create(&PostParams::default(), &exec).await.map(drop) }
        };
        stream::iter(0..COUNT).map(create).buffer_unordered(32).try_collect::<()>().await.unwrap();
    });
    let browser = open(world);
    browser.reads("#kinds [aria-selected=true] .count", "5,000");
    // Each was looked at by the controller, however fast they came.
    browser.reads(".chip.wait", "Waiting 5,000");
    // Only what is in sight is there, wherever one looks.
    browser.js("document.querySelector('#list').scrollTo(0, 1e9)");
    browser.sees("document.querySelector('#row-4999')");
    browser.sees("document.querySelectorAll('.row').length < 60");
    browser.keys("/");
    browser.keys("job-2345");
    browser.sees("document.querySelectorAll('.row').length === 1");
    browser.press(Key::Enter);
    browser.reads("#detail h2", "job-2345");
    browser.reads("#detail .state", "there is no Container");
    browser.picture("five-thousand");
    let heap = browser.js("performance.memory.usedJSHeapSize");
    println!("five thousand objects take {} MB of the browser's heap", heap.as_f64().unwrap_or_default() / 1e6);
    assert!(matches!(heap, Value::Number(_)));
}
