//! A real database, seeded once.

use serde_json::{Value, json};

use crate::docker::{Container, POSTGRES};
use crate::world::{World, manifest};

fn apply(world: &World, db: &Container) {
    let container = json!({
        "mode": "persistent",
        "containerName": db.name,
        "image": POSTGRES,
        "ports": [{"containerPort": 5432}],
        "healthcheck": {"command": ["pg_isready"], "intervalSeconds": 1},
    });
    let sql = "CREATE TABLE pets (name text); INSERT INTO pets VALUES ('Rex'), ('Mia')";
    let seed = json!({"containerName": "db", "command": "psql", "args": ["-v", "ON_ERROR_STOP=1", "-c", sql], "waitFor": "Healthy"});
    world.apply(&manifest("Container", "db", &container)).unwrap();
    world.apply(&manifest("ContainerExec", "seed", &seed)).unwrap();
}

fn seeded(world: &World, first: Option<&Value>) -> Value {
    let status = world.completed("seed");
    assert_eq!((&status["exitCode"], &status["stderr"]["tail"]), (&0.into(), &"".into()), "{status:#}");
    if let Some(first) = first {
        assert_eq!((&status["runId"], &status["restored"]), (&first["runId"], &true.into()));
    }
    status
}

fn pets(db: &Container) -> Vec<String> {
    let rows = db.sh("psql --tuples-only --no-align -c 'SELECT name FROM pets ORDER BY name'").unwrap();
    rows.lines().map(str::to_owned).collect()
}

/// The story that oncelet is for. The seed is one that would fail, or double the rows, if it ran again.
pub(crate) fn a_database_is_seeded_once_across_restarts_of_everything(world: &mut World) {
    world.start();
    let db = Container::named(&world.container_name("db"));
    apply(world, &db);
    let first = seeded(world, None);
    assert_eq!(pets(&db), ["Mia", "Rex"]);

    // The application ends badly, and comes again.
    world.kubectl(&["delete", "cexec/seed", "ctr/db"]).unwrap();
    world.kill();
    world.start();
    apply(world, &db);
    seeded(world, Some(&first));

    // The database is restarted, once beside the daemon and once without one.
    db.restart();
    world.kubectl(&["wait", "ctr/db", "--for=condition=Healthy", "--timeout=60s"]).unwrap();
    world.kubectl(&["delete", "cexec/seed", "ctr/db"]).unwrap();
    world.stop();
    db.stop();
    world.start();
    apply(world, &db);
    seeded(world, Some(&first));
    world.kubectl(&["wait", "ctr/db", "--for=condition=Healthy", "--timeout=60s"]).unwrap();
    assert_eq!(pets(&db), ["Mia", "Rex"]);
}
