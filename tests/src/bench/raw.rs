//! The baselines: async-nats by itself, tuned, under the same certificates and permissions.

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::{Client, ConnectOptions, RequestErrorKind, Subject, Subscriber};
use bus_proto::prost::bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::ReadyChunks;

use super::load::{Incoming, Outgoing};
use super::scene::{EVENT_FILTER, EVENT_SUBJECT, NOBODY_OF_RECEIVER, RECEIVER, SENDER, Scene};
use super::{BATCH, PAYLOAD};

/// How many messages the receiver takes at a time, if they are there.
const CHUNK: usize = 1_024;

/// How many commands may wait for the connection's task.
const CLIENT_CAPACITY: usize = 8_192;

/// How many messages may wait for their reader: more than any window.
const SUBSCRIPTION_CAPACITY: usize = 128 * 1_024;

/// Connects as `name`, as fast as async-nats can be made.
pub(crate) async fn connect(scene: &Scene, name: &str) -> Result<Client> {
    let options = ConnectOptions::new()
        .tls_client_config((*scene.identity(name)?.client_config()).clone())
        .require_tls(true)
        .tls_first()
        .custom_inbox_prefix(format!("_INBOX.{}", name.replace('/', ".")))
        .client_capacity(CLIENT_CAPACITY)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .skip_subject_validation(true);
    Ok(options.connect(scene.url()).await?)
}

/// Waits until the server has handled all that this client sent before, its subscriptions among it. `subject` is one that it
/// may publish to and nobody is subscribed to, which the server says at once.
pub(crate) async fn round_trip(client: &Client, subject: &'static str) -> Result<()> {
    match client.request(subject, Bytes::new()).await {
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("somebody answered on {subject}"),
    }
}

/// A subscription to the benchmark's events, which the server has.
async fn subscribe(scene: &Scene) -> Result<(Client, ReadyChunks<Subscriber>)> {
    let client = connect(scene, RECEIVER).await?;
    let subscriber = client.subscribe(EVENT_FILTER).await?;
    round_trip(&client, NOBODY_OF_RECEIVER).await?;
    Ok((client, subscriber.ready_chunks(CHUNK)))
}

/// One payload a publish.
pub(crate) mod single {
    use super::*;

    pub(crate) struct Publisher {
        client: Client,
        subject: Subject,
    }

    impl Outgoing for Publisher {
        async fn publish(&mut self, payload: Bytes) -> Result<()> {
            Ok(self.client.publish(self.subject.clone(), payload).await?)
        }

        async fn release(&mut self) -> Result<()> {
            Ok(())
        }
    }

    pub(crate) struct Receiver {
        _client: Client,
        messages: ReadyChunks<Subscriber>,
    }

    impl Incoming for Receiver {
        async fn receive(&mut self, mut take: impl FnMut(&[u8]) + Send) -> Result<()> {
            let messages = self.messages.next().await.context("the subscription ended")?;
            messages.iter().for_each(|message| take(&message.payload));
            Ok(())
        }
    }

    pub(crate) async fn open(scene: &Scene) -> Result<(Publisher, Receiver)> {
        let (client, messages) = subscribe(scene).await?;
        let receiver = Receiver { _client: client, messages };
        let client = connect(scene, SENDER).await?;
        Ok((Publisher { client, subject: Subject::from_static(EVENT_SUBJECT) }, receiver))
    }
}

/// As many payloads a publish as a batch of ours may hold, each after its length, and nothing signed.
pub(crate) mod batched {
    use super::*;

    pub(crate) struct Publisher {
        client: Client,
        subject: Subject,
        gathered: BytesMut,
        members: usize,
    }

    impl Outgoing for Publisher {
        async fn publish(&mut self, payload: Bytes) -> Result<()> {
            if self.members == 0 {
                self.gathered = BytesMut::with_capacity(BATCH * (2 + PAYLOAD));
            }
            self.gathered.put_u16(u16::try_from(payload.len())?);
            self.gathered.put_slice(&payload);
            self.members += 1;
            if self.members == BATCH { self.release().await } else { Ok(()) }
        }

        async fn release(&mut self) -> Result<()> {
            if self.members > 0 {
                self.members = 0;
                let batch = self.gathered.split().freeze();
                self.client.publish(self.subject.clone(), batch).await?;
            }
            Ok(())
        }
    }

    pub(crate) struct Receiver {
        _client: Client,
        messages: ReadyChunks<Subscriber>,
    }

    impl Incoming for Receiver {
        async fn receive(&mut self, mut take: impl FnMut(&[u8]) + Send) -> Result<()> {
            for message in self.messages.next().await.context("the subscription ended")? {
                let mut batch = message.payload;
                while batch.has_remaining() {
                    let length = usize::from(batch.try_get_u16()?);
                    ensure!(length <= batch.len(), "a batch ends within a member");
                    // A payload that its reader could keep, as a product would have to give it.
                    take(&batch.split_to(length));
                }
            }
            Ok(())
        }
    }

    pub(crate) async fn open(scene: &Scene) -> Result<(Publisher, Receiver)> {
        let (client, messages) = subscribe(scene).await?;
        let receiver = Receiver { _client: client, messages };
        let client = connect(scene, SENDER).await?;
        let subject = Subject::from_static(EVENT_SUBJECT);
        Ok((Publisher { client, subject, gathered: BytesMut::new(), members: 0 }, receiver))
    }
}
