//! What a program that is run from the command line gets on stdin: all that there is with `-i`, and nothing that is lost
//! without.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use oncelet_api::{
    ContainerExec, NOT_UPLOADED, UPLOAD_KEY, UPLOAD_LIMIT, UPLOAD_PART, UPLOADED_ANNOTATION, Upload, condition,
};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::FileType;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::ask::{Request, Withdrawn};
use crate::objects::Objects;
use crate::output;
use crate::progress::Line;

/// What this ends with where nothing was started, or where input was lost.
const REFUSED: u8 = 125;
/// How many parts are uploaded at a time.
const AT_A_TIME: usize = 4;
/// How often an API server is asked again that does not answer, and how long between two tries. After that the follower connects
/// anew.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);

const LOST: &str =
    "stdin has data, which would be lost: pass -i to send it to the program, or redirect stdin from /dev/null";
const TOO_LATE: &str = "data arrived on stdin after the program was asked for without -i, and is lost to it; its outcome \
                        stays recorded. Pass -i to send the data to the program, which makes it another run";

/// What there is on stdin.
pub(crate) enum Given {
    /// What the program is to read, with `-i`.
    Input(Input),
    /// Nothing so far, without `-i`. What tells when something comes; it never does where nothing can come.
    Nothing(Mutex<Option<oneshot::Receiver<()>>>),
}

impl Given {
    /// Looks at stdin; with `-i`, reads it to its end.
    ///
    /// # Errors
    /// Where data would be lost, or cannot be taken. Nothing has been asked for then.
    pub(crate) async fn take(interactive: bool, tty: bool) -> Result<Self> {
        if tty {
            bail!(
                "--tty is not possible: what is typed into a terminal cannot be recorded and repeated. Leave -t out (-i alone \
                 sends stdin), or use docker exec -it"
            );
        }
        if interactive {
            return Ok(Self::Input(tokio::task::spawn_blocking(read_all).await??));
        }
        let kind = rustix::fs::fstat(io::stdin()).map(|stat| FileType::from_raw_mode(stat.st_mode));
        match kind {
            Ok(FileType::RegularFile) if file_has_more()? => bail!(LOST),
            Ok(FileType::Fifo | FileType::Socket) if waiting_bytes() > 0 => bail!(LOST),
            Ok(FileType::Fifo | FileType::Socket) => {
                let (tell, arrival) = oneshot::channel();
                // Not one of the runtime's threads, which would have to end before this process can: this one ends with it.
                std::thread::spawn(|| tell_of_data(tell));
                Ok(Self::Nothing(Mutex::new(Some(arrival))))
            }
            _ => Ok(Self::Nothing(Mutex::new(None))),
        }
    }

    /// What is uploaded for the program.
    pub(crate) fn input(&self) -> Option<&Input> {
        match self {
            Self::Input(input) => Some(input),
            Self::Nothing(_) => None,
        }
    }

    /// Follows `request` with `follow` to its end. Data that comes on a stdin that nobody reads takes the request back before the
    /// program is started, and is an error after.
    pub(crate) async fn beside(
        &self,
        request: &Request,
        mut follow: impl Future<Output = Result<ExitCode>> + Unpin,
    ) -> Result<ExitCode> {
        // Both go on where the other one is done; data stays where it is.
        tokio::select! {
            code = &mut follow => return code,
            () = self.data() => {}
        }
        if request.withdraw().await? == Withdrawn::BeforeTheStart {
            return Ok(refuse(&anyhow::Error::msg(LOST)));
        }
        complain(TOO_LATE);
        follow.await?;
        Ok(ExitCode::from(REFUSED))
    }

    /// Waits for data on a stdin that nobody reads.
    async fn data(&self) {
        let arrives = match self {
            Self::Nothing(arrives) => arrives.lock().unwrap_or_else(PoisonError::into_inner).take(),
            Self::Input(_) => None,
        };
        if let Some(arrives) = arrives
            && arrives.await.is_ok()
        {
            return;
        }
        // Nothing comes any more.
        std::future::pending::<()>().await;
    }
}

/// Says why nothing was started, and what to end with.
pub(crate) fn refuse(error: &anyhow::Error) -> ExitCode {
    complain(&output::one_line(error));
    ExitCode::from(REFUSED)
}

fn complain(text: &str) {
    let loud = crate::table::LOUD;
    anstream::eprintln!("{loud}error:{loud:#} {text}");
}

fn file_has_more() -> Result<bool> {
    let stdin = io::stdin();
    let at = rustix::fs::seek(&stdin, rustix::fs::SeekFrom::Current(0))?;
    let size = rustix::fs::fstat(&stdin)?.st_size;
    Ok(u64::try_from(size).unwrap_or_default() > at)
}

/// Waits until there is data on stdin, which stays there, or none can come any more.
fn tell_of_data(arrived: oneshot::Sender<()>) {
    loop {
        let stdin = io::stdin();
        let mut wanted = [PollFd::new(&stdin, PollFlags::IN)];
        match rustix::event::poll(&mut wanted, None) {
            Ok(_) if waiting_bytes() > 0 => {
                // Nobody waits for it where the program is over.
                let _ = arrived.send(());
                return;
            }
            Ok(_) if wanted[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) => return,
            // The end of a socket, or somebody else who has the pipe was faster.
            Ok(_) => std::thread::sleep(PAUSE),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// How many bytes can be read at once.
fn waiting_bytes() -> u64 {
    rustix::io::ioctl_fionread(io::stdin()).unwrap_or_default()
}

/// All that was on stdin, in a file without a name that only this process has.
pub(crate) struct Input {
    file: Arc<File>,
    digest: Upload,
}

fn read_all() -> Result<Input> {
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        eprintln!("oncelet reads the program's stdin from the terminal; Ctrl-D ends it");
    }
    read_input(&mut stdin)
}

/// Reads `from` to its end. Memory stays flat.
fn read_input(from: &mut impl Read) -> Result<Input> {
    const NO_PLACE: &str = "stdin cannot be kept in a temporary file (TMPDIR says where)";
    let mut file = tempfile::tempfile().context(NO_PLACE)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("stdin cannot be read"),
        };
        bytes += i64::try_from(read)?;
        if bytes > UPLOAD_LIMIT {
            bail!(
                "stdin has more than {} MiB, which is what an API server is trusted with: put it into a file that the container \
                 sees (a volume, or docker cp), and let the program read that",
                UPLOAD_LIMIT >> 20
            );
        }
        hash.update(&piece[..read]);
        file.write_all(&piece[..read]).context(NO_PLACE)?;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(Input { file: Arc::new(file), digest: Upload { bytes, sha256: format!("{:x}", hash.finalize()) } })
}

impl Input {
    /// As the spec of an object declares it.
    pub(crate) fn declared(&self) -> oncelet_api::Stdin {
        oncelet_api::Stdin { upload: Some(self.digest.clone()), ..oncelet_api::Stdin::default() }
    }

    async fn part(&self, index: usize) -> Result<Vec<u8>> {
        let start = index * UPLOAD_PART;
        let all = usize::try_from(self.digest.bytes)?;
        let (file, size) = (Arc::clone(&self.file), UPLOAD_PART.min(all.saturating_sub(start)));
        let part = tokio::task::spawn_blocking(move || {
            let mut part = vec![0; size];
            file.read_exact_at(&mut part, start as u64).map(|()| part)
        });
        part.await?.context("the temporary file with stdin cannot be read")
    }
}

/// Uploads the input as often as it is asked for.
pub(crate) struct Uploads<'a> {
    input: &'a Input,
    /// For which object it was uploaded last, and by which message it had asked.
    sent: Option<(String, String)>,
    /// Whether the object has shown since that it knows.
    is_known: bool,
}

impl<'a> Uploads<'a> {
    pub(crate) fn of(input: &'a Input) -> Self {
        Self { input, sent: None, is_known: false }
    }

    /// Uploads the input if `object` waits for it. Tells whether it does.
    pub(crate) async fn send_to(&mut self, objects: &Objects, object: &ContainerExec, line: &Line) -> Result<bool> {
        let conditions = object.status.iter().flat_map(|status| &status.conditions);
        let started = conditions.clone().find(|it| it.type_ == condition::STARTED);
        let Some(started) = started.filter(|it| it.status != "True" && it.reason == NOT_UPLOADED) else {
            return Ok(false);
        };
        let is_announced = object.annotations().contains_key(UPLOADED_ANNOTATION);
        let asked = (object.uid().unwrap_or_default(), started.message.clone());
        // What comes next may have been on its way before we were done.
        let is_old_news = self.sent.as_ref() == Some(&asked) && (is_announced || !self.is_known);
        self.is_known |= is_announced;
        if !is_old_news {
            line.waits(format!("uploading {} bytes of stdin", self.input.digest.bytes));
            self.upload(objects, object).await?;
            (self.sent, self.is_known) = (Some(asked), false);
        }
        Ok(true)
    }

    /// Uploads all parts, and says so on the object. Parts that are there already are as good: another client sends the same.
    async fn upload(&self, objects: &Objects, object: &ContainerExec) -> Result<()> {
        let secrets = Api::<Secret>::namespaced(objects.client(), &objects.namespace);
        let uid = object.uid().unwrap_or_default();
        let owner = object.owner_ref(&()).context("the object has no UID")?;
        let all = stream::iter(0..self.input.digest.parts()).map(|index| {
            let (secrets, uid, owner) = (&secrets, &uid, &owner);
            async move {
                let bytes = self.input.part(index).await?;
                let part = Upload::part(uid, index, owner.clone(), bytes);
                patiently(|| put(secrets, &part)).await.context("a part of stdin cannot be uploaded")
            }
        });
        let sent: Result<()> = all.buffer_unordered(AT_A_TIME).try_collect().await;
        sent?;
        // An object of this name that is another one by now is not told.
        let patch = json!({"metadata": {"uid": uid, "annotations": {UPLOADED_ANNOTATION: self.input.digest.sha256}}});
        let (execs, name) = (objects.execs(), object.name_any());
        let told = patiently(|| async {
            match execs.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                // It is gone: whoever follows it sees that.
                Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409 | 422) => Ok(()),
                result => result.map(drop),
            }
        });
        told.await.context("the API server did not take it that stdin is uploaded")
    }
}

/// Creates a part. One that is there and is something else is replaced.
async fn put(secrets: &Api<Secret>, part: &Secret) -> Result<(), kube::Error> {
    match secrets.create(&PostParams::default(), part).await {
        Err(kube::Error::Api(error)) if error.reason == "AlreadyExists" => {}
        result => return result.map(drop),
    }
    let name = part.name_any();
    let there = secrets.get_opt(&name).await?.and_then(|there| there.data);
    let key = |data: &Option<_>| {
        data.as_ref().and_then(|data: &std::collections::BTreeMap<_, _>| data.get(UPLOAD_KEY).cloned())
    };
    if key(&there) == key(&part.data) {
        return Ok(());
    }
    match secrets.delete(&name, &DeleteParams::default()).await {
        Err(kube::Error::Api(error)) if error.code == 404 => {}
        result => drop(result?),
    }
    secrets.create(&PostParams::default(), part).await.map(drop)
}

/// Asks again where no API server answers, for a while: a daemon that is started again comes back.
async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, kube::Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let mut tries = 0;
    loop {
        match ask().await {
            Err(error) if is_passing(&error) && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Whether another try may go well: the API server did not answer, is busy, or has been started again and forgotten the object.
pub(crate) fn may_pass(error: &anyhow::Error) -> bool {
    error.downcast_ref::<kube::Error>().is_some_and(|error| {
        is_passing(error) || matches!(error, kube::Error::Api(error) if matches!(error.code, 401 | 404))
    })
}

fn is_passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(error) => error.code == 429 || error.code >= 500,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many zero bytes.
    struct Zeros(u64);

    impl Read for Zeros {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = buffer.len().min(usize::try_from(self.0).unwrap_or(usize::MAX));
            buffer[..read].fill(0);
            self.0 -= read as u64;
            Ok(read)
        }
    }

    #[tokio::test]
    async fn input_is_cut_into_parts_that_are_it_again_when_put_together() {
        let bytes: Vec<u8> = (0..2 * UPLOAD_PART + 7).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let input = read_input(&mut bytes.as_slice()).unwrap();
        assert_eq!(input.digest.parts(), 3);
        let mut together = Vec::new();
        for index in 0..3 {
            together.extend(input.part(index).await.unwrap());
        }
        assert!(together == bytes);
        assert_eq!(input.digest.sha256, format!("{:x}", Sha256::digest(&bytes)));
    }

    #[test]
    fn no_input_is_input_too() {
        let input = read_input(&mut io::empty()).unwrap();
        assert_eq!((input.digest.bytes, input.digest.parts()), (0, 0));
        assert_eq!(input.digest.sha256, format!("{:x}", Sha256::digest(b"")));
    }

    #[test]
    fn too_much_input_is_refused_with_the_way_out() {
        let error = read_input(&mut Zeros(u64::try_from(UPLOAD_LIMIT).unwrap() + 1)).err().unwrap().to_string();
        assert!(error.contains("256 MiB") && error.contains("volume"), "{error}");
    }
}
