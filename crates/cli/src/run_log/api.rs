//! The log endpoint of an embedded API server, see `log_part`.

use anyhow::{Context, Result, bail};
use axum::http::Request;
use futures::AsyncReadExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Error;
use oncelet_api::{GROUP, VERSION};
use oncelet_store::Stream;
use tokio::sync::watch;

use super::{PAUSE, RunOf, Sink, Wanted};
use crate::objects::Objects;
use crate::progress::Line;

/// How often reading is tried again once the run is over.
const TRIES: u32 = 10;
/// How much is read at once.
const PIECE: usize = 64 * 1024;

/// Whether the API server serves logs. One that does not answer is asked again while the run goes on.
pub(super) async fn is_served(objects: &Objects, is_over: &watch::Receiver<bool>) -> Result<bool> {
    let mut left = TRIES;
    loop {
        let request = Request::get(format!("/apis/{GROUP}/{VERSION}")).body(Vec::new())?;
        match objects.client().request::<APIResourceList>(request).await {
            Ok(list) => return Ok(list.resources.iter().any(|resource| resource.name == "containerexecs/log")),
            Err(error) => again(objects, is_over, &mut left, error).await?,
        }
    }
}

/// Waits for another try, which there is as long as the run goes on and a few times after.
async fn again(objects: &Objects, is_over: &watch::Receiver<bool>, left: &mut u32, error: Error) -> Result<()> {
    if *is_over.borrow() {
        *left -= 1;
        if *left == 0 {
            return Err(error).context("the output cannot be read from the API server");
        }
    }
    tokio::time::sleep(PAUSE).await;
    // The next try says what is wrong.
    let _ = objects.renew().await;
    Ok(())
}

pub(super) async fn print(
    objects: &Objects,
    of: &RunOf,
    wanted: Wanted,
    line: Option<&Line>,
    is_over: watch::Receiver<bool>,
) -> Result<()> {
    let streams = wanted.streams().map(|stream| {
        let sink = Sink { to: wanted.writer(stream), line };
        print_stream(objects, of, wanted, stream, sink, is_over.clone())
    });
    futures::future::try_join_all(streams).await.map(drop)
}

async fn print_stream(
    objects: &Objects,
    of: &RunOf,
    wanted: Wanted,
    stream: Stream,
    mut sink: Sink<'_>,
    is_over: watch::Receiver<bool>,
) -> Result<()> {
    let (mut offset, mut left) = (0_u64, TRIES);
    loop {
        // Asked before reading: what is written before the end is read after it.
        let is_last = *is_over.borrow();
        let follow = wanted.follow && !is_last;
        let path = format!(
            "/apis/{GROUP}/{VERSION}/namespaces/{}/containerexecs/{}/log?source={}&run={}&follow={follow}&timestamps={}&offset={offset}",
            objects.namespace,
            of.name,
            stream.as_str(),
            of.run.id,
            wanted.timestamps,
        );
        match read(objects, path, &mut sink, &mut offset).await {
            // An end of the stream may be that of the daemon.
            Ok(()) if is_last || !wanted.follow => return Ok(()),
            Ok(()) => wait_for_end(&is_over).await,
            Err(Broken::Here(error)) => return Err(error),
            Err(Broken::There(_)) if wanted.timestamps && offset > 0 => {
                bail!("the connection to the API server broke, and a log with times cannot be gone on with")
            }
            Err(Broken::There(error)) => again(objects, &is_over, &mut left, error).await?,
        }
    }
}

/// After an end: the run's, which the object shows in a moment, or the daemon's, after which another one goes on.
async fn wait_for_end(is_over: &watch::Receiver<bool>) {
    let mut is_over = is_over.clone();
    let _ = tokio::time::timeout(PAUSE, is_over.wait_for(|is_over| *is_over)).await;
}

/// Where reading broke off.
enum Broken {
    /// On the way from the server.
    There(Error),
    /// On the way to our own output.
    Here(anyhow::Error),
}

async fn read(objects: &Objects, path: String, sink: &mut Sink<'_>, offset: &mut u64) -> Result<(), Broken> {
    let request = Request::get(path).body(Vec::new()).map_err(|error| Broken::Here(error.into()))?;
    let stream = objects.client().request_stream(request).await.map_err(Broken::There)?;
    let mut stream = std::pin::pin!(stream);
    let mut piece = vec![0; PIECE];
    loop {
        let length = stream.read(&mut piece).await.map_err(|error| Broken::There(Error::ReadEvents(error)))?;
        if length == 0 {
            return Ok(());
        }
        sink.write(&piece[..length]).map_err(Broken::Here)?;
        *offset += length as u64;
    }
}
