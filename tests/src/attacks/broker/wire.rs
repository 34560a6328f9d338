//! The NATS protocol, as far as someone between a client and a server has to understand it.

use std::io;
use std::str;

use bus_proto::prost::bytes::Bytes;

/// Which way something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub fn back(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The subject that it was published to.
    pub subject: String,
    /// The subscription that it is delivered to, by the client's number for it. Empty on the way to the server.
    pub subscription: String,
    /// Where an answer goes.
    pub reply: Option<String>,
    /// The block of headers, from its version to its empty line.
    pub headers: Option<Bytes>,
    /// What it carries.
    pub payload: Bytes,
}

impl Message {
    /// A message without headers, a reply subject or a subscription.
    #[must_use]
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            subject: subject.into(),
            subscription: String::new(),
            reply: None,
            headers: None,
            payload: payload.into(),
        }
    }

    /// The same with this block of headers.
    #[must_use]
    pub fn with_headers(mut self, headers: impl Into<Bytes>) -> Self {
        self.headers = Some(headers.into());
        self
    }

    /// Appends its frame: `PUB` or `HPUB` to the server, `MSG` or `HMSG` to the client.
    pub(super) fn encode(&self, direction: Direction, out: &mut Vec<u8>) {
        let verb = match (direction, &self.headers) {
            (Direction::ToServer, None) => "PUB",
            (Direction::ToServer, Some(_)) => "HPUB",
            (Direction::ToClient, None) => "MSG",
            (Direction::ToClient, Some(_)) => "HMSG",
        };
        let words = [verb, &self.subject, &self.subscription, self.reply.as_deref().unwrap_or_default()];
        for word in words.iter().filter(|word| !word.is_empty()) {
            out.extend_from_slice(word.as_bytes());
            out.push(b' ');
        }
        let headers = self.headers.as_deref().unwrap_or_default();
        let total = (headers.len() + self.payload.len()).to_string();
        if self.headers.is_some() {
            out.extend_from_slice(headers.len().to_string().as_bytes());
            out.push(b' ');
        }
        for part in [total.as_bytes(), b"\r\n", headers, &self.payload, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
}

/// What one frame says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// A message: its words between the verb and the sizes, and where its headers end and its payload begins and ends.
    Message(Raw<'a>),
    /// A subscription, by the client's number for it.
    Subscribe { filter: &'a str, subscription: &'a str },
    /// The end of a subscription.
    Unsubscribe { subscription: &'a str },
    /// `INFO`, `CONNECT`, `PING`, `PONG`, `+OK`, `-ERR`, or what is malformed: it is forwarded as it is.
    Other,
}

/// A message whose parts are still where they arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Raw<'a> {
    words: &'a str,
    headers: Option<&'a [u8]>,
    payload: &'a [u8],
}

impl Raw<'_> {
    /// A copy with its own parts, or `None` if it has other words than a message has.
    pub(super) fn message(&self, direction: Direction) -> Option<Message> {
        let mut words = self.words.split_ascii_whitespace();
        let subject = words.next()?.to_owned();
        let subscription = match direction {
            Direction::ToServer => String::new(),
            Direction::ToClient => words.next()?.to_owned(),
        };
        let reply = words.next().map(str::to_owned);
        let headers = self.headers.map(Bytes::copy_from_slice);
        let payload = Bytes::copy_from_slice(self.payload);
        words.next().is_none().then_some(Message { subject, subscription, reply, headers, payload })
    }
}

/// The longest line that either side may send.
const LONGEST_LINE: usize = 64 * 1024;

/// The first frame in what has arrived: its length, and what it says. `None` as long as it is incomplete.
pub(super) fn next_frame(arrived: &[u8]) -> io::Result<Option<(usize, Content<'_>)>> {
    let Some(end) = arrived.iter().position(|byte| *byte == b'\n') else {
        let endless = arrived.len() > LONGEST_LINE;
        return if endless { Err(io::Error::other("a line without an end")) } else { Ok(None) };
    };
    let line = &arrived[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let after = end + 1;
    let verb_ends = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (verb, words) = line.split_at(verb_ends);
    match verb {
        b"MSG" | b"PUB" => framed(arrived, after, words, false),
        b"HMSG" | b"HPUB" => framed(arrived, after, words, true),
        b"SUB" => Ok(Some((after, subscribe(words).unwrap_or(Content::Other)))),
        b"UNSUB" => Ok(Some((after, unsubscribe(words).unwrap_or(Content::Other)))),
        _ => Ok(Some((after, Content::Other))),
    }
}

/// A frame that has its sizes at the end of its first line.
fn framed<'a>(
    arrived: &'a [u8],
    after: usize,
    words: &'a [u8],
    has_headers: bool,
) -> io::Result<Option<(usize, Content<'a>)>> {
    let (words, total) = split_size(words)?;
    let (words, headers_len) = if has_headers { split_size(words)? } else { (words, 0) };
    let Some(frame) = arrived.get(..after + total + 2) else {
        return Ok(None);
    };
    let body = &frame[after..after + total];
    let Some((headers, payload)) = body.split_at_checked(headers_len) else {
        return Err(io::Error::other("headers that are longer than their message"));
    };
    let content = match str::from_utf8(words) {
        Ok(words) => Content::Message(Raw { words, headers: has_headers.then_some(headers), payload }),
        Err(_) => Content::Other,
    };
    Ok(Some((frame.len(), content)))
}

/// Takes the last word off, which is a size.
fn split_size(words: &[u8]) -> io::Result<(&[u8], usize)> {
    let words = words.trim_ascii_end();
    let start = words.iter().rposition(u8::is_ascii_whitespace).map_or(0, |space| space + 1);
    let (rest, size) = words.split_at(start);
    let size = str::from_utf8(size).ok().and_then(|size| size.parse().ok());
    Ok((rest, size.ok_or_else(|| io::Error::other("a message without a size"))?))
}

fn subscribe(words: &[u8]) -> Option<Content<'_>> {
    let mut words = str::from_utf8(words).ok()?.split_ascii_whitespace();
    let filter = words.next()?;
    // A queue group may stand between the two.
    Some(Content::Subscribe { filter, subscription: words.last()? })
}

fn unsubscribe(words: &[u8]) -> Option<Content<'_>> {
    let mut words = str::from_utf8(words).ok()?.split_ascii_whitespace();
    let subscription = words.next()?;
    // With a number of messages it goes on for a while. It then stays known, which does no harm.
    words.next().is_none().then_some(Content::Unsubscribe { subscription })
}

/// Whether a subject fits a subscription's filter.
pub(super) fn fits(filter: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    let mut filter = filter.split('.');
    loop {
        match (filter.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(wanted), Some(token)) if wanted == "*" || wanted == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], direction: Direction) -> Vec<Message> {
        let (mut messages, mut rest) = (Vec::new(), bytes);
        while let Some((length, content)) = next_frame(rest).unwrap() {
            if let Content::Message(raw) = content {
                messages.push(raw.message(direction).unwrap());
            }
            rest = &rest[length..];
        }
        assert_eq!(rest, b"", "all of it is complete");
        messages
    }

    #[test]
    fn a_message_that_is_read_and_written_stays_the_same() {
        for (direction, bytes) in [
            (Direction::ToServer, &b"PUB a.b 3\r\nabc\r\n"[..]),
            (Direction::ToServer, b"PUB a.b _INBOX.c 0\r\n\r\n"),
            (Direction::ToServer, b"HPUB a.b 12 15\r\nNATS/1.0\r\n\r\nabc\r\n"),
            (Direction::ToClient, b"MSG a.b 7 3\r\na\r\n\r\n"),
            (Direction::ToClient, b"HMSG a.b 7 _INBOX.c 12 12\r\nNATS/1.0\r\n\r\n\r\n"),
        ] {
            let [message] = &read(bytes, direction)[..] else { panic!("one message") };
            let mut out = Vec::new();
            message.encode(direction, &mut out);
            assert_eq!(out, bytes, "{message:?}");
        }
    }

    #[test]
    fn an_incomplete_frame_waits_for_the_rest() {
        let bytes = b"INFO {}\r\nMSG a 1 5\r\nab\r\nc\r\nPING\r\n";
        let frame = b"MSG a 1 5\r\nab\r\nc\r\n";
        for length in 0..frame.len() {
            assert_eq!(next_frame(&frame[..length]).unwrap(), None, "{length} bytes");
        }
        assert_eq!(read(bytes, Direction::ToClient)[0].payload, Bytes::from_static(b"ab\r\nc"));
    }

    #[test]
    fn subscriptions_are_known_by_their_number() {
        let subscribe = |line: &'static [u8]| next_frame(line).unwrap().unwrap().1;
        assert_eq!(subscribe(b"SUB a.> 7\r\n"), Content::Subscribe { filter: "a.>", subscription: "7" });
        assert_eq!(subscribe(b"SUB a.> group 8\r\n"), Content::Subscribe { filter: "a.>", subscription: "8" });
        assert_eq!(subscribe(b"UNSUB 8\r\n"), Content::Unsubscribe { subscription: "8" });
        assert_eq!(subscribe(b"UNSUB 8 1\r\n"), Content::Other);
    }

    #[test]
    fn filters_fit_as_the_servers_do() {
        for (filter, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("*.b", "a.c", false),
        ] {
            assert_eq!(fits(filter, subject), expected, "{filter} {subject}");
        }
    }
}
