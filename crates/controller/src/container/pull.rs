//! Getting the image of a container that is about to be made.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use oncelet_api::{Container, ContainerState, PullPolicy};
use oncelet_engine::{Error as EngineError, Progress};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::status::Trouble;
use crate::context::{Ctx, one_line};
use crate::events::event;

/// The reason of a pull that failed.
pub(super) const FAILED: &str = "ImagePullFailed";
/// How long to wait before it is tried again.
pub(super) const PAUSE: Duration = Duration::from_secs(30);
/// How often its progress is shown.
const SHOW: Duration = Duration::from_secs(1);

/// What came of it.
pub(super) enum Image {
    /// The image is there; the object as it is now.
    Ready(Arc<Container>),
    /// It is not.
    Missing(Trouble),
    /// Nobody wants it any more, or the object has changed: look again.
    GivenUp,
}

/// Makes sure that the image is there, as the pull policy says.
pub(super) async fn image(ctx: &Ctx, container: Arc<Container>) -> Image {
    let image = container.spec.image.clone().unwrap_or_default();
    let pulls = match container.spec.pull_policy.unwrap_or_default() {
        PullPolicy::Never => false,
        PullPolicy::Always => true,
        PullPolicy::Missing => match ctx.engine.has_image(&image).await {
            Ok(has) => !has,
            Err(error) => return Image::Missing(Trouble::engine(&error)),
        },
    };
    if !pulls {
        return Image::Ready(container);
    }
    let begun = Instant::now();
    let Some(result) = pull(ctx, &container, &image).await else { return Image::GivenUp };
    match result {
        Ok(()) => {
            let note = format!("pulled {image} in {:.1} s", begun.elapsed().as_secs_f64());
            say(ctx, &container, "Pulled", &note);
            // With what was written of the progress.
            let now = ctx.containers.get(&ObjectRef::from_obj(&*container)).filter(|now| now.uid() == container.uid());
            now.map_or(Image::GivenUp, Image::Ready)
        }
        Err(error @ EngineError::Unreachable { .. }) => Image::Missing(Trouble::engine(&error)),
        Err(error) => {
            let message = format!("{image} cannot be pulled: {}", one_line(&error));
            Image::Missing(Trouble { reason: FAILED, message })
        }
    }
}

/// Pulls, and shows how far it is. `None` where the object or the daemon ends meanwhile.
async fn pull(ctx: &Ctx, container: &Container, image: &str) -> Option<Result<(), EngineError>> {
    let (told, progress) = watch::channel(Progress::default());
    let pulling = ctx.engine.pull_image(image, |progress| {
        told.send_replace(progress);
    });
    tokio::pin!(pulling);
    let mut shown = None;
    let mut show = tokio::time::interval_at(Instant::now() + SHOW, SHOW);
    loop {
        // The pull goes on where the tick is dropped, and the other way round.
        tokio::select! {
            done = &mut pulling => return Some(done),
            () = ctx.shutdown.cancelled() => return None,
            _ = show.tick() => {}
        }
        if !is_wanted(ctx, container) {
            return None;
        }
        let now = *progress.borrow();
        if shown.is_none() {
            say(ctx, container, "Pulling", &format!("pulling {image}"));
        }
        if shown != Some(now) {
            write_progress(ctx, container, format!("pulling {image}{}", text(now))).await;
            shown = Some(now);
        }
    }
}

fn text(progress: Progress) -> String {
    let Progress { layers, done, bytes, total } = progress;
    if layers == 0 {
        return String::new();
    }
    let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
    let size = if total > 0 { format!(", {} of {} MB", megabytes(bytes), megabytes(total)) } else { String::new() };
    format!(": {done} of {layers} layers{size}")
}

fn is_wanted(ctx: &Ctx, container: &Container) -> bool {
    let now = ctx.containers.get(&ObjectRef::from_obj(container));
    now.is_some_and(|now| {
        now.uid() == container.uid()
            && now.meta().deletion_timestamp.is_none()
            && now.spec.stop == container.spec.stop
            && now.spec.start == container.spec.start
    })
}

/// Shows the progress. Who cannot see it misses nothing else.
async fn write_progress(ctx: &Ctx, container: &Container, message: String) {
    let api = Api::<Container>::namespaced(ctx.client.clone(), &container.namespace().unwrap_or_default());
    // Of this object and no later one of the same name, at whatever version it is.
    let patch = json!({
        "metadata": {"uid": container.uid()},
        "status": {"state": ContainerState::Pulling, "message": message},
    });
    match api.patch_status(&container.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(written) => ctx.containers.wrote(written),
        Err(error) => tracing::debug!("the progress of a pull was not written: {}", one_line(&error)),
    }
}

fn say(ctx: &Ctx, container: &Container, reason: &str, note: &str) {
    ctx.events.tell(container, event(EventType::Normal, "Pull", reason, note));
}
