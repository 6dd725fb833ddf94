//! Images: whether they are there, and how they get there.

use std::collections::BTreeMap;

use bollard::{auth::DockerCredentials, models::CreateImageInfo, query_parameters::CreateImageOptionsBuilder};
use docker_credential::DockerCredential;
use futures::StreamExt;

use crate::{Engine, Error, engine::CALL, limits};

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Layers that are known so far.
    pub layers: usize,
    /// Of these, the ones that are there.
    pub done: usize,
    /// Bytes that have come, of the layers whose sizes are known.
    pub bytes: u64,
    /// Bytes of these layers in all.
    pub total: u64,
}

impl Engine {
    /// Whether the engine has the image.
    pub async fn has_image(&self, image: &str) -> Result<bool, Error> {
        limits::check_image(image)?;
        match self.call("image_inspect", CALL, |docker| async move { docker.inspect_image(image).await }).await {
            Ok(_) => Ok(true),
            Err(Error::Rejected { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The labels that the image gives its containers; `None` where the engine does not have it.
    pub async fn image_labels(&self, image: &str) -> Result<Option<BTreeMap<String, String>>, Error> {
        limits::check_image(image)?;
        match self.call("image_inspect", CALL, |docker| async move { docker.inspect_image(image).await }).await {
            Ok(found) => {
                Ok(Some(found.config.and_then(|config| config.labels).unwrap_or_default().into_iter().collect()))
            }
            Err(Error::Rejected { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gets the image from its registry, with the credentials that this user has for it in Docker's configuration, and tells how far it is whenever that changes. There is no limit to how long it may
    /// take; dropping the call gives it up.
    ///
    /// # Errors
    /// [`Error::Rejected`] with the registry's own words, where it cannot be had.
    pub async fn pull_image(&self, image: &str, mut progress: impl FnMut(Progress)) -> Result<(), Error> {
        limits::check_image(image)?;
        let (name, tag) = with_tag(image);
        let options = CreateImageOptionsBuilder::default().from_image(name).tag(tag).build();
        let registry = registry(image).to_owned();
        let credentials = tokio::task::spawn_blocking(move || credentials(&registry)).await.unwrap_or_default();
        let docker = self.client()?;
        let mut answers = std::pin::pin!(docker.create_image(Some(options), None, credentials));
        let mut layers = Layers::default();
        let mut last = Progress::default();
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(|error| Error::from_bollard(self.endpoint(), error))?;
            if let Some(message) = answer.error_detail.as_ref().and_then(|detail| detail.message.clone()) {
                return Err(Error::Rejected { status: 500, message });
            }
            layers.note(&answer);
            if layers.progress() != last {
                last = layers.progress();
                progress(last);
            }
        }
        Ok(())
    }
}

/// An engine takes a missing tag for all of them; a user means the latest.
fn with_tag(image: &str) -> (&str, &str) {
    let after_registry = image.rfind('/').map_or(0, |slash| slash + 1);
    match image[after_registry..].rfind(':') {
        _ if image.contains('@') => (image, ""),
        Some(colon) => (&image[..after_registry + colon], &image[after_registry + colon + 1..]),
        None => (image, "latest"),
    }
}

/// The registry of an image, by the name under which credentials are kept.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "https://index.docker.io/v1/",
    }
}

/// From Docker's configuration, or the helper that it names. Without any, the registry says what it thinks of that.
fn credentials(registry: &str) -> Option<DockerCredentials> {
    use docker_credential::CredentialRetrievalError::{ConfigNotFound, NoCredentialConfigured};
    let serveraddress = Some(registry.to_owned());
    match docker_credential::get_credential(registry) {
        Ok(DockerCredential::UsernamePassword(username, password)) => Some(DockerCredentials {
            username: Some(username),
            password: Some(password),
            serveraddress,
            ..DockerCredentials::default()
        }),
        Ok(DockerCredential::IdentityToken(token)) => {
            Some(DockerCredentials { identitytoken: Some(token), serveraddress, ..DockerCredentials::default() })
        }
        Err(ConfigNotFound | NoCredentialConfigured) => None,
        // Not with what a helper printed, which may be a secret.
        Err(_) => {
            tracing::warn!("the credentials for {registry} in Docker's configuration cannot be used");
            None
        }
    }
}

/// What was said of each layer, by its ID.
#[derive(Default)]
struct Layers(BTreeMap<String, Layer>);

#[derive(Default)]
struct Layer {
    bytes: u64,
    total: u64,
    done: bool,
}

impl Layers {
    fn note(&mut self, answer: &CreateImageInfo) {
        // What is said of the image as a whole has its tag, or no ID at all.
        let (Some(id), Some(status)) = (&answer.id, &answer.status) else { return };
        if !matches!(
            status.as_str(),
            "Pulling fs layer"
                | "Waiting"
                | "Downloading"
                | "Verifying Checksum"
                | "Download complete"
                | "Extracting"
                | "Pull complete"
                | "Already exists"
                | "Copying blob"
        ) {
            return;
        }
        let layer = self.0.entry(id.clone()).or_default();
        if let ("Downloading", Some(detail)) = (status.as_str(), &answer.progress_detail) {
            let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or_default();
            layer.bytes = number(detail.current);
            layer.total = number(detail.total);
        }
        layer.done |= matches!(status.as_str(), "Pull complete" | "Already exists");
        if layer.done || matches!(status.as_str(), "Download complete" | "Extracting") {
            layer.bytes = layer.total;
        }
    }

    fn progress(&self) -> Progress {
        Progress {
            layers: self.0.len(),
            done: self.0.values().filter(|layer| layer.done).count(),
            bytes: self.0.values().map(|layer| layer.bytes).sum(),
            total: self.0.values().map(|layer| layer.total).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    #[test]
    fn an_image_without_a_tag_is_the_latest_and_a_port_is_no_tag() {
        for (image, expected) in [
            ("postgres", ("postgres", "latest")),
            ("postgres:17", ("postgres", "17")),
            ("localhost:5000/db", ("localhost:5000/db", "latest")),
            ("localhost:5000/db:1", ("localhost:5000/db", "1")),
            ("db@sha256:00", ("db@sha256:00", "")),
        ] {
            assert_eq!(with_tag(image), expected);
        }
    }

    #[test]
    fn credentials_are_looked_for_under_the_name_of_the_registry() {
        for (image, expected) in [
            ("postgres:17", "https://index.docker.io/v1/"),
            ("library/postgres", "https://index.docker.io/v1/"),
            ("ghcr.io/a/b:1", "ghcr.io"),
            ("localhost/db", "localhost"),
            ("localhost:5000/db", "localhost:5000"),
        ] {
            assert_eq!(registry(image), expected);
        }
    }

    #[test]
    fn progress_counts_layers_and_the_bytes_of_those_whose_size_is_known() {
        let mut layers = Layers::default();
        let mut say = |id: &str, status: &str, bytes: Option<(i64, i64)>| {
            layers.note(&CreateImageInfo {
                id: Some(id.into()),
                status: Some(status.into()),
                progress_detail: bytes
                    .map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) }),
                ..CreateImageInfo::default()
            });
            layers.progress()
        };
        say("17", "Pulling from library/postgres", None);
        say("a", "Already exists", None);
        say("b", "Pulling fs layer", None);
        assert_eq!(say("b", "Downloading", Some((3, 10))), Progress { layers: 2, done: 1, bytes: 3, total: 10 });
        assert_eq!(say("b", "Pull complete", None), Progress { layers: 2, done: 2, bytes: 10, total: 10 });
    }
}
