//! What has to be done from time to time, whether somebody asks or not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::expiry::Expiry;
use crate::{credentials, expiry};

/// Keeps house until the end.
pub(crate) async fn keep(app: Arc<App>, end: CancellationToken) {
    let credentials = async {
        let mut ticks = every(credentials::LOOK);
        while end.run_until_cancelled(ticks.tick()).await.is_some() {
            app.credentials.fresh().await;
        }
    };
    let events = async {
        let (mut ticks, mut expiry) = (every(expiry::LOOK), Expiry::default());
        while end.run_until_cancelled(ticks.tick()).await.is_some() {
            expiry.sweep(&app).await;
        }
    };
    tokio::join!(credentials, events);
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
