//! Leaving a server that is about to shut down, before it closes the connection.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::timeout;

use crate::connection::Inner;
use crate::dial::spread;
use crate::shared::Shared;

/// The clients of a server leave within this time, each at a moment of its own: half of what nats-server gives them unless it
/// is told otherwise.
const SPREAD: Duration = Duration::from_secs(5);

/// How long the answers that are under way are waited for. Calls that begin meanwhile wait as well.
const ANSWERS: Duration = Duration::from_secs(1);

/// Goes to another server whenever the present one says that it is about to shut down: after a random pause below `max_pause`,
/// so that others do not get all of its clients at once.
pub(crate) async fn leave_lame_ducks(inner: Weak<Inner>, shared: Arc<Shared>, max_pause: Duration) {
    let mut lame_duck = shared.lame_duck.subscribe();
    // The sender is the shared state's own.
    while lame_duck.changed().await.is_ok() {
        let epoch = *lame_duck.borrow_and_update();
        tokio::time::sleep(spread(SPREAD.min(max_pause))).await;
        let Some(inner) = inner.upgrade() else { return };
        if shared.leave(epoch) {
            inner.change_server(epoch).await;
        }
    }
}

impl Inner {
    /// Has the answers that are under way come, and everything that was sent be handled, and then connects to another server.
    async fn change_server(&self, epoch: u64) {
        let limit = ANSWERS.min(self.operation_timeout / 2);
        // What does not come in time would be lost by waiting for the server to close the connection as well.
        let _ = timeout(limit, self.replies.idle()).await;
        let _ = timeout(limit, self.round_trip()).await;
        if self.shared.epoch() == epoch {
            // It fails only when the connection's task is gone, which the next call finds out.
            let _ = timeout(self.operation_timeout, self.nats.force_reconnect()).await;
        }
    }
}
