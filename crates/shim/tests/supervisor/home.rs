//! Whose directories and files count.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use oncelet_shim::frame::Frame;
use oncelet_shim::{End, Owners, Place, StopReason, Task, file};

use crate::support::{Disk, exit, listen, spawn, tell};

fn mode(path: &str, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn fifo(path: &str) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();
}

/// Whether this user may give files to others.
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: what belongs to others: this user cannot give anything to them");
    }
    is_root
}

/// The supervisor's words, where it has started nothing.
fn unusable(frames: &[Frame]) -> &str {
    match frames {
        [Frame::Unusable(words)] => &words.message,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Starts a program that says that it ran.
fn start(disk: &Disk, run: &str) -> Vec<Frame> {
    tell(disk.run(run), &["/bin/sh", "-c", &format!("echo ran >> {}/runs", disk.0.path().display())])
}

fn starts(disk: &Disk) -> usize {
    fs::read_to_string(disk.0.path().join("runs")).unwrap_or_default().lines().count()
}

#[test]
fn nothing_is_started_in_a_directory_that_others_can_write_to() {
    let disk = Disk::new();
    let place = disk.place("a");
    let dirs = [place.root.clone(), place.container_dir(), place.home()];
    for dir in &dirs {
        for open in [0o1777, 0o775, 0o757] {
            mode(dir, open);
            assert!(unusable(&start(&disk, "a")).contains("can be written to by other users"), "{dir} {open:o}");
            let hello = tell(disk.probe(), &[]);
            assert!(matches!(&hello[..], [Frame::Hello(hello)] if hello.problem.is_some()), "{hello:?}");
        }
        mode(dir, 0o755);
        if is_root() {
            chown(dir, Some(1000), None).unwrap();
            assert!(unusable(&start(&disk, "a")).contains("belongs to user 1000"), "{dir}");
            chown(dir, Some(0), None).unwrap();
        }
    }
    let (home, elsewhere) = (place.home(), format!("{}/elsewhere", place.root));
    fs::rename(&home, &elsewhere).unwrap();
    symlink(&elsewhere, &home).unwrap();
    assert!(unusable(&start(&disk, "a")).contains("is a symbolic link"));
    fs::remove_file(&home).unwrap();
    assert!(unusable(&start(&disk, "a")).contains("No such file"));
    fs::rename(&elsewhere, &home).unwrap();
    assert_eq!(starts(&disk), 0);
    let hello = tell(disk.probe(), &[]);
    let uid = rustix::process::geteuid().as_raw();
    assert!(matches!(&hello[..], [Frame::Hello(hello)] if hello.problem.is_none() && hello.uid == uid), "{hello:?}");
    assert_eq!(exit(&start(&disk, "a")).end, End::Code(0));
}

#[test]
fn what_is_no_gate_in_the_place_of_one_starts_nothing_until_it_is_forgotten() {
    let disk = Disk::new();
    for (run, make) in [
        ("link", (|gate| symlink("/tmp", gate).unwrap()) as fn(&str)),
        ("pipe", fifo),
        ("file", |gate| fs::write(gate, "").unwrap()),
        ("open", |gate| {
            fs::create_dir(gate).unwrap();
            mode(gate, 0o777);
        }),
    ] {
        let place = disk.place(run);
        make(&place.gate());
        assert!(unusable(&start(&disk, run)).contains("nothing was started"), "{run}");
        unusable(&tell(disk.follow(run, [0, 0]), &[]));
        unusable(&tell(Task::Stop { place: place.clone(), by: StopReason::Stop, grace_seconds: 0 }, &[]));
        unusable(&tell(Task::Clean { places: vec![place.clone()] }, &[]));
        let before = starts(&disk);
        assert_eq!(tell(Task::Forget { places: vec![place] }, &[]), [Frame::Done], "{run}");
        assert_eq!(exit(&start(&disk, run)).end, End::Code(0), "{run}");
        assert_eq!(starts(&disk), before + 1);
    }
    assert!(Path::new("/tmp").is_dir(), "links are not followed");
}

#[test]
fn what_is_no_part_of_a_record_in_the_place_of_one_is_not_waited_for() {
    let disk = Disk::new();
    let claimed = |run: &str| {
        assert_eq!(exit(&start(&disk, run)).end, End::Code(0));
        disk.place(run)
    };
    for (run, make) in [
        ("pipe", fifo as fn(&str)),
        ("device", |path| symlink("/dev/zero", path).unwrap()),
        ("dir", |path| fs::create_dir(path).unwrap()),
        ("sparse", |path| fs::File::create(path).unwrap().set_len(10 << 40).unwrap()),
    ] {
        let place = claimed(run);
        for part in [file::CLAIM, file::STARTED, file::STOP, file::EXIT] {
            let path = format!("{}/{part}", place.gate());
            let _ = fs::remove_file(&path);
            make(&path);
        }
        let before = starts(&disk);
        assert_eq!(start(&disk, run), [Frame::Refused], "{run}");
        let followed = tell(disk.follow(run, [0, 0]), &[]);
        assert!(matches!(followed[..], [Frame::Abandoned(_)]), "{run}: {followed:?}");
        let task = Task::Stop { place: place.clone(), by: StopReason::Stop, grace_seconds: 0 };
        assert!(matches!(tell(task, &[])[..], [Frame::Done | Frame::Unusable(_)]), "{run}");
        assert_eq!(tell(Task::Clean { places: vec![place.clone()] }, &[]), [Frame::Done], "{run}");
        assert_eq!(tell(Task::Forget { places: vec![place.clone()] }, &[]), [Frame::Done], "{run}");
        assert!(!Path::new(&place.gate()).exists());
        assert_eq!(starts(&disk), before);
    }
}

#[test]
fn what_is_no_segment_in_the_place_of_one_is_not_waited_for() {
    let disk = Disk::new();
    let mut supervisor = spawn(disk.run("a"), &["/bin/echo", "out"]);
    drop(supervisor.stdin.take());
    supervisor.wait().unwrap();
    let segment = disk.place("a").segment(oncelet_shim::Stream::Stdout, 0);
    fs::remove_file(&segment).unwrap();
    fifo(&segment);
    let told = tell(disk.follow("a", [0, 0]), &[]);
    assert_eq!(exit(&told).stdout.bytes, 4);
}

#[test]
fn a_program_that_spoils_its_record_is_still_told_of() {
    let disk = Disk::new();
    for (run, spoil) in [
        ("pipes", "for it in claim exit started stop; do rm -f $it.json .$it.json; mkfifo $it.json .$it.json; done"),
        ("gone", "rm -rf $PWD"),
        ("replaced", "rm -rf $PWD; touch $PWD"),
        ("dir", "mkdir -p exit.json/x exit.json.foreign/x"),
    ] {
        let script = format!("cd {} && {spoil}; exit 7", disk.place(run).gate());
        assert_eq!(exit(&tell(disk.run(run), &["/bin/sh", "-c", &script])).end, End::Code(7), "{run}");
    }
}

/// Up to version 2 everybody could make gates in what is root's directory now.
#[test]
fn what_others_left_in_the_directory_of_root_is_in_nobodys_way_and_listed() {
    if !is_root() {
        return;
    }
    let disk = Disk::new();
    let (a, b) = (disk.place("a"), disk.place("b"));
    for path in [a.gate(), b.gate(), a.spool(), format!("{}/1001", a.home()), format!("{}/1002", a.home())] {
        fs::create_dir(&path).unwrap();
        let owner = if path.ends_with("1002") { 1002 } else { 1000 };
        chown(&path, Some(owner), None).unwrap();
    }
    assert_eq!(tell(Task::Survey { place: a.clone() }, &[]), [Frame::Done]);
    let listed = || serde_json::from_slice::<Owners>(&fs::read(a.owners()).unwrap()).unwrap();
    assert_eq!(
        listed(),
        [("a", 1000), ("a.output", 1000), ("b", 1000)].map(|(name, uid)| (name.to_owned(), uid)).into()
    );
    assert!(!Path::new(&format!("{}/1001", a.home())).exists(), "another user's, and so no home");
    assert!(Path::new(&format!("{}/1002", a.home())).exists());
    assert_eq!(tell(disk.follow("a", [0, 0]), &[]), [Frame::NoClaim]);
    assert_eq!(exit(&start(&disk, "a")).end, End::Code(0));
    assert!(!listed().contains_key("a"), "the gate is root's now");
    assert_eq!(listed().get("b"), Some(&1000));
    assert_eq!(start(&disk, "a"), [Frame::Refused]);
}

/// A supervisor of another user, in its own directory, beside root's.
#[test]
fn a_user_runs_in_its_own_directory_and_roots_gates_count_for_it() {
    use std::os::unix::process::CommandExt as _;
    if !is_root() {
        return;
    }
    let disk = Disk::new();
    // Where everybody can run it.
    let supervisor = disk.0.path().join("shim");
    fs::copy(env!("CARGO_BIN_EXE_oncelet-shim"), &supervisor).unwrap();
    let as_user = |task: Task| {
        let order = serde_json::to_string(&oncelet_shim::Order::new(task)).unwrap();
        let mut command = Command::new(&supervisor);
        command.args(["--", "/bin/sh", "-c", "exit 3"]).env(oncelet_shim::ORDER_VARIABLE, order).uid(1000).gid(1000);
        listen(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()).0
    };
    let place = |run: &str| Place { user: 1000, ..disk.place(run) };
    let missing = as_user(disk.probe());
    assert!(
        matches!(&missing[..], [Frame::Hello(hello)] if hello.problem.is_some() && hello.uid == 1000),
        "{missing:?}"
    );
    fs::create_dir(place("").home()).unwrap();
    chown(place("").home(), Some(1000), Some(1000)).unwrap();
    assert_eq!(exit(&as_user(disk.run("a"))).end, End::Code(3));
    assert!(Path::new(&place("a").gate()).exists());
    assert_eq!(as_user(disk.run("a")), [Frame::Refused]);
    // Its gates are none of root's, and root's are its.
    assert_eq!(exit(&start(&disk, "a")).end, End::Code(0));
    assert_eq!(exit(&start(&disk, "b")).end, End::Code(0));
    assert_eq!(as_user(disk.run("b")), [Frame::Refused]);
    // One of its own of version 2.
    fs::create_dir(disk.place("c").gate()).unwrap();
    chown(disk.place("c").gate(), Some(1000), None).unwrap();
    assert_eq!(as_user(disk.run("c")), [Frame::Refused]);
    assert!(matches!(as_user(disk.follow("c", [0, 0]))[..], [Frame::Abandoned(_)]));
    unusable(&as_user(Task::Survey { place: disk.place("") }));
}
