//! What can go wrong when talking to an engine.

use std::sync::Arc;

use crate::ContainerId;
use crate::wire::TooLarge;

/// In bytes, of an engine's own words in a message.
const LONGEST_MESSAGE: usize = 4096;

type Source = Arc<dyn std::error::Error + Send + Sync>;

/// A call to the engine failed. Texts are for people; [`Error::kind`] is for programs.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The endpoint cannot be used as written.
    #[error("the engine endpoint {endpoint:?} cannot be used: {reason}")]
    InvalidEndpoint {
        /// As the user wrote it.
        endpoint: String,
        /// What is wrong with it, and what to write instead.
        reason: String,
    },
    /// No engine answers there: not running, no permission, connection lost, or no answer in time. If the call was
    /// one that changes something, it may still have taken effect.
    #[error("the container engine at {endpoint} cannot be reached; is it running, and may this user access it?")]
    Unreachable {
        /// URL, or the list of places that were searched.
        endpoint: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// The container or exec does not exist.
    #[error("{what} does not exist in the container engine")]
    NotFound {
        /// Such as `container 0123…`.
        what: String,
    },
    /// The container name is taken.
    #[error("the container name {name:?} is already taken{}", holder.as_ref().map(|id| format!(" by container {id}")).unwrap_or_default())]
    Conflict {
        /// The name that was asked for.
        name: String,
        /// Who has it, if the engine said so.
        holder: Option<ContainerId>,
    },
    /// The container exists and is stopped or paused, so that nothing can be run in it now.
    #[error("nothing can run in container {container} now: {message}")]
    ContainerNotRunning {
        /// Its ID, or the exec's ID where only that is known.
        container: String,
        /// The engine's own message.
        message: String,
    },
    /// No supervisor can run in the container.
    #[error("no supervisor can be put into container {container}: {message}")]
    NotSupervisable {
        /// Its ID.
        container: String,
        /// Why.
        message: String,
    },
    /// The supervisor in a container did not do what it was asked for.
    #[error("the supervisor in container {container} did not do it: {message}")]
    Supervisor {
        /// The container's ID.
        container: String,
        /// Why.
        message: String,
    },
    /// The image is not in the engine's local storage.
    #[error("the image {image:?} is not in the container engine; pull or build it first")]
    NoSuchImage {
        /// As it was asked for.
        image: String,
    },
    /// The exec has been started before; an exec ID runs at most once.
    #[error("exec {exec} has already been started")]
    AlreadyStarted {
        /// Its ID.
        exec: String,
    },
    /// The request could never work, and was not sent.
    #[error("{message}")]
    InvalidRequest {
        /// What is wrong with it.
        message: String,
    },
    /// The engine refused for another reason.
    #[error("the container engine refused (HTTP {status}): {message}")]
    Rejected {
        /// HTTP status.
        status: u16,
        /// The engine's own message.
        message: String,
    },
    /// The engine's answer could not be understood.
    #[error("the answer of the container engine at {endpoint} could not be understood")]
    Protocol {
        /// URL.
        endpoint: String,
        /// What was wrong with it.
        #[source]
        source: Source,
    },
}

/// [`Error`] without its details, to match on and to choose a condition's reason by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the variants of `Error` say it")]
pub enum ErrorKind {
    Supervisor,
    NotSupervisable,
    InvalidEndpoint,
    Unreachable,
    NotFound,
    Conflict,
    ContainerNotRunning,
    NoSuchImage,
    AlreadyStarted,
    InvalidRequest,
    Rejected,
    Protocol,
}

impl Error {
    /// Which error this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidEndpoint { .. } => ErrorKind::InvalidEndpoint,
            Self::Unreachable { .. } => ErrorKind::Unreachable,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::ContainerNotRunning { .. } => ErrorKind::ContainerNotRunning,
            Self::NotSupervisable { .. } => ErrorKind::NotSupervisable,
            Self::Supervisor { .. } => ErrorKind::Supervisor,
            Self::NoSuchImage { .. } => ErrorKind::NoSuchImage,
            Self::AlreadyStarted { .. } => ErrorKind::AlreadyStarted,
            Self::InvalidRequest { .. } => ErrorKind::InvalidRequest,
            Self::Rejected { .. } => ErrorKind::Rejected,
            Self::Protocol { .. } => ErrorKind::Protocol,
        }
    }

    /// Whether the same call may succeed later although nobody changes the request. This says nothing about whether
    /// repeating it is *safe*: after `Unreachable` a start may have happened.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Rejected { status, .. } => *status >= 500,
            _ => matches!(
                self.kind(),
                ErrorKind::Unreachable
                    | ErrorKind::NotFound
                    | ErrorKind::Conflict
                    | ErrorKind::ContainerNotRunning
                    | ErrorKind::NoSuchImage
                    | ErrorKind::Protocol
            ),
        }
    }

    /// Whether the name that was asked for is the beginning of several IDs.
    pub fn is_ambiguous(&self) -> bool {
        let says = |message: &str| ["Multiple IDs found", "more than one result"].iter().any(|it| message.contains(it));
        matches!(self, Self::Rejected { message, .. } if says(message))
    }

    pub(crate) fn unreachable(endpoint: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unreachable { endpoint: endpoint.to_owned(), source: source.into().into() }
    }

    pub(crate) fn protocol(endpoint: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Protocol { endpoint: endpoint.to_owned(), source: source.into().into() }
    }

    /// A refusal in the engine's words, as far as they fit into a message: who reads it has not asked for more.
    pub(crate) fn rejected(status: u16, message: &str) -> Self {
        let mut end = message.len().min(LONGEST_MESSAGE);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let plain = |c: char| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
        let mut text: String = message[..end].chars().map(plain).collect();
        if end < message.len() {
            text.push('…');
        }
        Self::Rejected { status, message: text }
    }

    pub(crate) fn from_bollard(endpoint: &str, error: bollard::errors::Error) -> Self {
        use bollard::errors::Error as Bollard;
        if let Some(too_large) = TooLarge::behind(&error) {
            return Self::protocol(endpoint, too_large);
        }
        match error {
            Bollard::DockerResponseServerError { status_code, message } => Self::rejected(status_code, &message),
            Bollard::HyperLegacyError { .. }
            | Bollard::HyperResponseError { .. }
            | Bollard::IOError { .. }
            | Bollard::RequestTimeoutError
            | Bollard::SocketNotFoundError(_) => Self::unreachable(endpoint, error),
            _ => Self::protocol(endpoint, error),
        }
    }

    /// Names the container in the errors that mean its absence or its state.
    ///
    /// Podman answers 500 where Docker answers 409, so that the text has to decide there.
    pub(crate) fn about_container(self, container: &str) -> Self {
        match self {
            // Podman answers 404 to that, too.
            ambiguous if ambiguous.is_ambiguous() => ambiguous,
            Self::Rejected { status: 404, .. } => Self::NotFound { what: format!("container {container}") },
            Self::Rejected { status: 409 | 500, message } if says_not_running(&message) => {
                Self::ContainerNotRunning { container: container.to_owned(), message }
            }
            Self::Rejected { status: 500, message } if message.contains("no such container") => {
                Self::NotFound { what: format!("container {container}") }
            }
            other => other,
        }
    }
}

fn says_not_running(message: &str) -> bool {
    ["not running", "is paused", "is restarting", "on running containers"].iter().any(|text| message.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(status: u16, message: &str) -> Error {
        Error::Rejected { status, message: message.to_owned() }.about_container("c1")
    }

    #[test]
    fn both_engines_ways_to_say_not_running_are_one_error() {
        for (status, message) in [
            (409, "Container 3f8b is not running"),
            (409, "Container 3f8b is paused, unpause the container before exec"),
            (500, "can only create exec sessions on running containers: container state improper"),
            (409, "cannot exec in a container that is not running; container cbf6 is exited"),
        ] {
            assert_eq!(rejected(status, message).kind(), ErrorKind::ContainerNotRunning, "{message}");
        }
    }

    #[test]
    fn a_missing_container_is_named() {
        assert_eq!(
            rejected(404, "No such container: x").to_string(),
            "container c1 does not exist in the container engine"
        );
    }

    #[test]
    fn the_beginning_of_several_ids_is_no_missing_container() {
        for (status, message) in [
            (400, "Multiple IDs found with provided prefix: 7"),
            (404, "more than one result for container ID 3: container already exists"),
        ] {
            let error = rejected(status, message);
            assert!(error.is_ambiguous() && error.kind() == ErrorKind::Rejected, "{error}");
        }
    }

    #[test]
    fn what_an_engine_says_is_cut_and_moves_no_cursor() {
        let Error::Rejected { message, .. } = Error::rejected(500, &format!("\u{1b}[2J{}", "ä".repeat(1 << 20)))
        else {
            panic!("it is a refusal");
        };
        assert!(message.len() < LONGEST_MESSAGE + 10 && message.starts_with("\u{fffd}[2J") && message.ends_with("ä…"));
    }

    #[test]
    fn other_refusals_keep_the_engines_words() {
        assert!(rejected(500, "disk full").to_string().ends_with("disk full"));
        assert!(rejected(500, "disk full").is_retryable());
        assert!(!rejected(400, "bad parameter").is_retryable());
    }
}
