//! The task that sends what waits.

use std::sync::{Arc, Weak};

use bus_crypto::MAX_MEMBERS;
use tokio::time::timeout;

use super::outlet::{Outlet, Ready};
use crate::connection::Inner;

/// After how many turns of others in which nothing was added it goes out as it is.
const QUIET_TURNS: usize = 4;

/// Where several messages wait, somebody is publishing more than one after the other: while it goes on, so does the
/// gathering, until the batch is full. A message alone is not kept waiting.
async fn gather(outlet: &Outlet) {
    let (mut waiting, mut quiet) = (outlet.waiting(), 0);
    while waiting > 1 && waiting < MAX_MEMBERS && quiet < QUIET_TURNS {
        tokio::task::yield_now().await;
        let now = outlet.waiting();
        quiet = if now == waiting { quiet + 1 } else { 0 };
        waiting = now;
    }
}

/// Makes an outlet ready again when nobody else sends there.
async fn when_free(outlet: Arc<Outlet>, ready: Arc<Ready>) {
    drop(outlet.lane.lock().await);
    ready.add(outlet);
}

/// Sends what waits, batch after batch, the most urgent subject first. It waits for each batch to reach the socket: until
/// then the next one gathers, and no more than one is in flight.
pub(crate) async fn dispatch(inner: Weak<Inner>, ready: Arc<Ready>) {
    loop {
        let outlet = ready.next().await;
        gather(&outlet).await;
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = inner.wait_until_up().await {
            // Nothing is kept back, to be sent when it is stale.
            let reason = error.to_string();
            inner.give_up(&outlet, &reason);
            while let Some(other) = ready.take() {
                inner.give_up(&other, &reason);
            }
            continue;
        }
        let Ok(mut lane) = outlet.lane.try_lock() else {
            // Somebody sends there by himself, and may take his time. Others do not wait for him.
            inner.runtime.spawn(when_free(outlet, Arc::clone(&ready)));
            continue;
        };
        let Some(run) = outlet.pop() else { continue };
        inner.send_waiting(&outlet, &mut lane, run).await;
        drop(lane);
        // Whatever is left takes its turn behind others that are as urgent.
        ready.add(outlet);
        // It fails only when the connection's task is gone, which the next message finds out.
        let _ = timeout(inner.operation_timeout, inner.nats.flush()).await;
    }
}
