//! What a captured message proves, and what it does not, in words.

use std::path::Path;

use bus_proto::Destination;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde_json::{Value, json};

use super::{Item, Proof};
use crate::output::Output;
use crate::payload;
use crate::values::{time_of_millis, time_of_seconds};

/// What is told about a proof.
pub(super) struct Report<'a> {
    pub(super) file: &'a Path,
    pub(super) crl: Option<&'a Path>,
    pub(super) proof: &'a Proof<'a>,
}

impl Report<'_> {
    pub(super) fn print(&self, output: Output) -> anyhow::Result<()> {
        output.record(|| self.to_text(output), || self.to_json())?;
        Ok(())
    }

    fn to_text(&self, output: Output) -> String {
        let Proof { message, lifetime, leaf, address, items, .. } = self.proof;
        let scan = message.scan();
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        row("signed by", message.principal().to_string());
        row("key", message.key_id().to_string());
        let (from, until) = (time_of_millis(lifetime.not_before), time_of_millis(lifetime.sign_until));
        row("key signs", format!("from {from} until {until}"));
        row("certificate", format!("serial {}, valid until {}", leaf.serial(), time_of_seconds(leaf.not_after())));
        row("revocation", self.revocation());
        row("subject", scan.subject().to_owned());
        row("type", address.message_type.to_string());
        row("sent to", self.receivers());
        row("made", format!("{}, as it says", time_of_millis(scan.timestamp())));
        row("sequence", scan.sequence().map_or_else(|| "not counted".to_owned(), |sequence| sequence.to_string()));
        let what = if scan.members().is_empty() { "message" } else { "messages" };
        let lines: Vec<String> = items.iter().enumerate().map(|(index, item)| self.line(index, item)).collect();
        row(what, lines.join("\n"));
        for (index, limit) in self.limits().iter().enumerate() {
            row(if index == 0 { "not proven" } else { "" }, (*limit).to_owned());
        }
        let good = self.proof.revocation.is_none();
        let verdict = if good { "verified" } else { "NOT VERIFIED, as the certificate is revoked" };
        format!("{}: {}\n{table}", output.verdict(good, verdict), self.file.display())
    }

    fn line(&self, index: usize, item: &Item<'_>) -> String {
        let Item { message_id, timestamp, expires_at, payload } = item;
        let place = if self.proof.message.scan().members().is_empty() { String::new() } else { format!("[{index}] ") };
        let end = expires_at.map_or_else(String::new, |end| format!("  expires {}", time_of_millis(end)));
        format!("{place}{}  {message_id}  {}{end}", time_of_millis(*timestamp), payload::to_text(payload))
    }

    fn receivers(&self) -> String {
        match (self.proof.message.scan().destination(), &self.proof.address.destination) {
            (Some(receiver), _) => receiver.to_owned(),
            (None, Destination::Inbox(endpoint)) => endpoint.to_string(),
            (None, Destination::Events) => "all that the policy lets receive it".to_owned(),
        }
    }

    fn revocation(&self) -> String {
        match (&self.proof.revocation, self.crl) {
            (Some(revocation), _) => format!(
                "serial {} is revoked since {}, {} the message says that it was made",
                revocation.serial,
                time_of_seconds(revocation.since_unix_ms.div_euclid(1000)),
                if self.is_after_revocation() { "already when" } else { "after" },
            ),
            (None, Some(crl)) => format!("not on {}", crl.display()),
            (None, None) => "not checked: give --crl FILE".to_owned(),
        }
    }

    /// Whether the message states a time at which the certificate was revoked already.
    fn is_after_revocation(&self) -> bool {
        let stated = self.proof.message.scan().timestamp();
        self.proof.revocation.as_ref().is_some_and(|revocation| revocation.since_unix_ms <= stated)
    }

    fn limits(&self) -> Vec<&'static str> {
        let mut limits = vec![
            "that it was made when it says: whoever holds a key can sign any time into a message",
            "that it was delivered, and to whom, and that it was sent only once",
        ];
        match (&self.proof.revocation, self.crl) {
            (Some(_), _) if self.is_after_revocation() => {}
            (Some(_), _) => limits.push("that it was made before the revocation: who stole the key can date it back"),
            (None, Some(_)) => limits.push("that the certificate was not revoked after the list was made"),
            (None, None) => limits.push("that the certificate was not revoked"),
        }
        limits
    }

    fn to_json(&self) -> Value {
        let Proof { message, lifetime, leaf, address, items, revocation } = self.proof;
        let scan = message.scan();
        let item = |item: &Item<'_>| {
            json!({
                "message_id": item.message_id,
                "time": time_of_millis(item.timestamp),
                "expires": item.expires_at.map(time_of_millis),
                "payload": payload::to_json(&item.payload),
            })
        };
        json!({
            "verified": revocation.is_none(),
            "file": self.file,
            "signed_by": message.principal().to_string(),
            "key_id": message.key_id().to_string(),
            "key_not_before": time_of_millis(lifetime.not_before),
            "key_sign_until": time_of_millis(lifetime.sign_until),
            "certificate_serial": leaf.serial(),
            "certificate_not_after": time_of_seconds(leaf.not_after()),
            "revocation_checked": self.crl.is_some(),
            "revoked": revocation.as_ref().map(|revocation| json!({
                "serial": revocation.serial,
                "since": time_of_seconds(revocation.since_unix_ms.div_euclid(1000)),
                "before_stated_time": self.is_after_revocation(),
            })),
            "subject": scan.subject(),
            "type": address.message_type.token(),
            "destination": scan.destination(),
            "time": time_of_millis(scan.timestamp()),
            "sequence": scan.sequence(),
            "is_batch": !scan.members().is_empty(),
            "messages": items.iter().map(item).collect::<Value>(),
            "not_proven": self.limits(),
        })
    }
}
