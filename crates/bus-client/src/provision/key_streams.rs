//! The key streams.

use bus_crypto::MAX_BUNDLE_LEN;
use bus_crypto::sealing::record::MAX_RECORD_LEN;
use bus_proto::{KeyStream, SubjectRoot};
use serde_json::json;

use super::{Asset, Config, DUPLICATE_WINDOW, Provisioned, leave_to_operator, object};
use crate::connection::{BusClient, Inner};
use crate::error::ProvisionError;
use crate::key_stream::KEPT;

/// The most that a stream keeps in all, in bytes: the most of 2,048 components, and what they leave as a rule of very many
/// more.
const MAX_BYTES: u32 = 256 * 1024 * 1024;

/// A day in nanoseconds.
const DAY: u64 = 24 * 3600 * 1_000_000_000;

/// How long a bundle is kept, in nanoseconds: a key signs for at most one day, and is verified for seven more.
const MAX_AGE_OF_BUNDLES: u64 = 8 * DAY;

/// How long the record of a sealing key is kept, in nanoseconds: it is of use for at most 30 days.
const MAX_AGE_OF_RECORDS: u64 = 31 * DAY;

/// What [`BusClient::provision_key_streams`] did about each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProvisionedStreams {
    /// About that of the key bundles ([`SubjectRoot::bundles`]).
    pub bundles: Provisioned,
    /// About that of the sealing keys ([`SubjectRoot::sealing_keys`]).
    pub sealing_keys: Provisioned,
}

impl BusClient {
    /// Sees to it that the two key streams are there, with the settings that they have to have: that of the key bundles
    /// ([`SubjectRoot::bundles`]), and that of the sealing keys ([`SubjectRoot::sealing_keys`]).
    ///
    /// Every component leaves its own there, and any component reads them. A stream keeps the latest eight messages of each
    /// component, of at most 16 KiB each, on disk: bundles for eight days, records of sealing keys for 31. Nobody can delete
    /// from it, purge it or roll it up. It is kept on as many nodes as [`BusOptions::stream_replicas`] says; unless that
    /// is set, it is made with one replica, and a stream that is there keeps the number that it has. Its placement stays as it is.
    ///
    /// [`BusOptions::stream_replicas`]: crate::BusOptions::stream_replicas
    ///
    /// Only the server's provisioner may do this. Doing it again changes nothing.
    ///
    /// ```no_run
    /// # async fn run(bus: bus_client::BusClient) -> Result<(), bus_client::ProvisionError> {
    /// let done = bus.provision_key_streams().await?;
    /// println!("{}: {:?}", bus.root().bundles().name(), done.bundles);
    /// println!("{}: {:?}", bus.root().sealing_keys().name(), done.sealing_keys);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When the server has no JetStream, does not let this component do it, refuses a stream, or does not answer within
    /// the operation timeout. [`ProvisionError::Unchangeable`] is for an operator to resolve. The stream of bundles comes
    /// first, and stays when the other one cannot be had.
    pub async fn provision_key_streams(&self) -> Result<ProvisionedStreams, ProvisionError> {
        let inner = &self.inner;
        inner.wait_until_up().await?;
        let root = &inner.gate.root;
        let bundles = inner.provision_keys(root.bundles(), bundles_config(root)).await?;
        let sealing_keys = inner.provision_keys(root.sealing_keys(), sealing_keys_config(root)).await?;
        Ok(ProvisionedStreams { bundles, sealing_keys })
    }
}

impl Inner {
    async fn provision_keys(&self, stream: KeyStream<'_>, mut wanted: Config) -> Result<Provisioned, ProvisionError> {
        let name = stream.name();
        let found = self.find(Asset::Stream(&name)).await?;
        leave_to_operator(&["num_replicas", "placement"], found.as_ref(), &mut wanted);
        if let Some(nodes) = self.stream_replicas {
            wanted.insert("num_replicas".to_owned(), nodes.get().into());
        }
        self.bring_about(Asset::Stream(&name), found, &wanted).await
    }
}

/// The stream of key bundles as it has to be.
fn bundles_config(root: &SubjectRoot) -> Config {
    config(root.bundles(), "Key bundles of the components", MAX_AGE_OF_BUNDLES, MAX_BUNDLE_LEN)
}

/// The stream of sealing keys as it has to be.
fn sealing_keys_config(root: &SubjectRoot) -> Config {
    config(root.sealing_keys(), "Sealing keys of the components", MAX_AGE_OF_RECORDS, MAX_RECORD_LEN)
}

fn config(stream: KeyStream<'_>, description: &str, max_age: u64, max_len: usize) -> Config {
    object(json!({
        "name": stream.name(),
        "description": description,
        "subjects": [stream.filter()],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "num_replicas": 1,
        "compression": "none",
        "max_msgs_per_subject": KEPT,
        "max_msg_size": max_len,
        "max_bytes": MAX_BYTES,
        "max_age": max_age,
        "max_msgs": -1,
        "max_consumers": -1,
        "duplicate_window": DUPLICATE_WINDOW,
        "allow_direct": true,
        "deny_delete": true,
        "deny_purge": true,
        "allow_rollup_hdrs": false,
        "allow_msg_ttl": false,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::significant;

    #[test]
    fn what_the_server_adds_to_a_configuration_makes_no_difference() {
        let wanted = sealing_keys_config(&SubjectRoot::default());
        let mut found = wanted.clone();
        let added = json!({
            "sealed": false, "mirror_direct": false, "consumer_limits": {}, "metadata": { "_nats.ver": "2.15.1" },
            "sources": null, "first_seq": 0,
        });
        found.extend(added.as_object().unwrap().clone());
        assert_eq!(significant(&found), significant(&wanted));
        for (name, value) in
            [("max_msgs_per_subject", json!(9)), ("mirror", json!({ "name": "X" })), ("no_ack", true.into())]
        {
            let mut other = found.clone();
            other.insert(name.to_owned(), value);
            assert_ne!(significant(&other), significant(&wanted), "{name}");
        }
    }
}
