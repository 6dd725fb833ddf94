//! What is said to a supervisor, over its stdin.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::StdinSource;
use crate::exec::Stdin;

/// A task that writes to a supervisor's stdin: first what the program is to read, then words. Dropped, it closes the connection.
///
/// It is a task of its own because a supervisor speaks while it is spoken to.
pub(super) struct Voice {
    words: mpsc::UnboundedSender<Bytes>,
    failure: Arc<Mutex<Option<io::Error>>>,
    _task: AbortOnDropHandle<()>,
}

impl Voice {
    pub(super) fn new(mut stdin: Stdin, source: Option<StdinSource>) -> Self {
        let (words, mut to_say) = mpsc::unbounded_channel::<Bytes>();
        let failure = Arc::new(Mutex::new(None));
        let task = tokio::spawn({
            let failure = Arc::clone(&failure);
            async move {
                if let Some(source) = source
                    && let Err(error) = pump(source, &mut stdin).await
                {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    // The supervisor sees the end, and says what it makes of it.
                    let _ = stdin.shutdown().await;
                    return;
                }
                while let Some(word) = to_say.recv().await {
                    if stdin.write_all(&word).await.is_err() || stdin.flush().await.is_err() {
                        // Nobody listens. How it fared shows in what it says, or does not say.
                        return;
                    }
                }
            }
        });
        Self { words, failure, _task: AbortOnDropHandle::new(task) }
    }

    /// Says it after everything that was said before. One that does not listen any more does not hear it.
    pub(super) fn say(&self, word: impl Into<Bytes>) {
        // A task that has ended had nobody to say it to.
        let _ = self.words.send(word.into());
    }

    /// Why what the program reads did not get through, where that is known here.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(ToString::to_string)
    }
}

async fn pump(mut source: StdinSource, stdin: &mut Stdin) -> io::Result<()> {
    while let Some(bytes) = source.next().await {
        stdin.write_all(&bytes?).await?;
    }
    stdin.flush().await
}
