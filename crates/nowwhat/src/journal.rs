//! Log lines for the journal of systemd, in its native protocol: one datagram an entry, every value a field of its own.
//!
//! The protocol is <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>. An entry too large for a datagram is sent with its
//! long values cut, and says so in the field `TRUNCATED`; handing such entries over in a file, as the protocol also
//! allows, is not done here.
//!
//! It does not decide what is logged, and it never waits longer than [`SEND_TIMEOUT`] for the journal.

use crate::environment::Environment;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;
use tracing::Level;

/// Where the journal listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// How long one entry may wait for a journal that does not read.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Characters of a field's name, by the journal's rule.
const NAME_CHARS_MAX: usize = 64;

/// Bytes of a value when the entry does not fit; the second is for entries of many values.
const VALUE_BYTES_CUT: [usize; 2] = [16 * 1024, 512];

/// A connection to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// Connects to the journal that listens at `path`, usually [`SOCKET`].
    ///
    /// # Errors
    /// The operating system's, with the path.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let named =
            |e: io::Error| io::Error::new(e.kind(), format!("cannot reach the journal at {}: {e}", path.display()));
        let socket = UnixDatagram::unbound()?;
        socket.connect(path).map_err(named)?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self { socket })
    }

    /// Sends one entry. Names are as [`field_name`] makes them; the same name may come more than once.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when a name is not one the journal takes; the operating system's when the
    /// journal is gone, does not read, or the entry does not fit even with its values cut.
    pub fn send(&self, fields: &[(&str, &[u8])]) -> io::Result<()> {
        if let Some((name, _)) = fields.iter().find(|(name, _)| !is_field_name(name)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} is not a name of a journal field"),
            ));
        }
        let mut sent = self.socket.send(&entry(fields, usize::MAX));
        for bytes_max in VALUE_BYTES_CUT {
            match &sent {
                Err(error) if is_too_large(error) => sent = self.socket.send(&entry(fields, bytes_max)),
                _ => break,
            }
        }
        sent.map(drop)
    }
}

/// The entry as bytes, with values of at most `bytes_max` bytes.
fn entry(fields: &[(&str, &[u8])], bytes_max: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut cut = Vec::new();
    for (name, value) in fields {
        if value.len() > bytes_max {
            cut.push(*name);
        }
        append(&mut out, name, cut_at(value, bytes_max));
    }
    if !cut.is_empty() {
        append(&mut out, "TRUNCATED", cut.join(" ").as_bytes());
    }
    out
}

/// The first bytes of a value, without a part of a character.
fn cut_at(value: &[u8], bytes_max: usize) -> &[u8] {
    let begins_character = |at: &usize| value[*at] & 0xc0 != 0x80;
    match value.len() > bytes_max {
        true => &value[..(0..=bytes_max).rev().find(begins_character).unwrap_or(bytes_max)],
        false => value,
    }
}

fn append(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) == Some(rustix::io::Errno::MSGSIZE)
}

/// The journal's name for a field of a log line: `request_id` is `REQUEST_ID`, `http.route` is `HTTP_ROUTE`. None when
/// there is nothing to send: the journal notes the time itself, and a name must have a letter.
pub fn field_name(name: &str) -> Option<String> {
    let mapped = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    let mapped: String = mapped.collect();
    // Names that begin with `_` are the journal's own, names that begin with a digit are refused by it.
    let mapped = mapped.trim_start_matches(|c: char| c == '_' || c.is_ascii_digit());
    let mapped = &mapped[..mapped.len().min(NAME_CHARS_MAX)];
    (name != "@timestamp" && !mapped.is_empty()).then(|| mapped.to_owned())
}

fn is_field_name(name: &str) -> bool {
    name.len() <= NAME_CHARS_MAX
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// The level as a priority of syslog, for the field `PRIORITY`.
pub fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Whether standard error of this process goes to the journal, by the variable `JOURNAL_STREAM` that systemd sets: the
/// journal's native protocol can then be used instead. It is not so when standard error was redirected afterwards.
pub fn is_journal(environment: &Environment) -> bool {
    environment.get("JOURNAL_STREAM").is_some_and(|stream| names_file(stream, io::stderr()))
}

/// Whether `stream`, a device and an inode as `8:4711`, names the open file.
fn names_file(stream: &str, file: impl AsFd) -> bool {
    let Ok(stat) = rustix::fs::fstat(file) else { return false };
    let named = stream.split_once(':').and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    named == Some((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// A socket that stands for the journal's.
    fn journal() -> (tempfile::TempDir, UnixDatagram, Journal) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let journal = Journal::connect(&path).expect("the socket listens");
        (folder, socket, journal)
    }

    fn received(socket: &UnixDatagram) -> Vec<(String, Vec<u8>)> {
        let mut datagram = vec![0; 1 << 20];
        let n = socket.recv(&mut datagram).expect("an entry");
        fields_of(&datagram[..n])
    }

    /// Reads an entry as the journal does.
    fn fields_of(mut entry: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut fields = Vec::new();
        while !entry.is_empty() {
            let name_end = entry.iter().position(|b| b"=\n".contains(b)).expect("the end of a name");
            let name = String::from_utf8(entry[..name_end].to_vec()).expect("a name");
            let (start, end) = if entry[name_end] == b'=' {
                let rest = entry[name_end..].iter().position(|b| *b == b'\n').expect("the end of a value");
                (name_end + 1, name_end + rest)
            } else {
                let length = entry[name_end + 1..name_end + 9].try_into().expect("eight bytes");
                (name_end + 9, name_end + 9 + usize::try_from(u64::from_le_bytes(length)).expect("a length"))
            };
            assert_eq!(entry[end], b'\n', "a field ends with a line break");
            fields.push((name, entry[start..end].to_vec()));
            entry = &entry[end + 1..];
        }
        fields
    }

    #[test]
    fn every_value_arrives_as_it_was_and_cannot_make_another_field() {
        let (_folder, socket, journal) = journal();
        let sent: [(&str, &[u8]); 4] = [
            ("MESSAGE", b"two lines\nPRIORITY=0"),
            ("PRIORITY", b"6"),
            ("PATH", b"/a=b"),
            ("BYTES", &[0, 255, b'\n', b'=']),
        ];
        journal.send(&sent).expect("sent");
        let expected: Vec<(String, Vec<u8>)> = sent.iter().map(|(n, v)| ((*n).to_owned(), v.to_vec())).collect();
        assert_eq!(received(&socket), expected);
    }

    #[test]
    fn an_entry_too_large_for_a_datagram_is_cut_and_says_so() {
        let (_folder, socket, journal) = journal();
        let long = vec![b'x'; 4 << 20];
        journal.send(&[("MESSAGE", &long), ("PRIORITY", b"3")]).expect("sent");
        let fields = received(&socket);
        assert_eq!(fields[0], ("MESSAGE".to_owned(), vec![b'x'; VALUE_BYTES_CUT[0]]));
        assert_eq!(
            fields[1..],
            [("PRIORITY".to_owned(), b"3".to_vec()), ("TRUNCATED".to_owned(), b"MESSAGE".to_vec())]
        );

        let many: Vec<(&str, &[u8])> = std::iter::repeat_n(("VALUE", &long[..16 * 1024]), 100).collect();
        journal.send(&many).expect("sent");
        assert_eq!(received(&socket)[0].1.len(), VALUE_BYTES_CUT[1]);
    }

    #[test]
    fn a_value_is_cut_between_characters() {
        assert_eq!(cut_at("größe".as_bytes(), 3), "gr".as_bytes());
        assert_eq!(cut_at("größe".as_bytes(), 4), "grö".as_bytes());
        assert_eq!(cut_at("größe".as_bytes(), 7), "größe".as_bytes());
    }

    #[test]
    fn a_journal_that_is_gone_or_does_not_read_is_an_error_and_not_a_wait() {
        let (folder, socket, journal) = journal();
        let missing = Journal::connect(&folder.path().join("missing")).expect_err("nobody listens");
        assert!(missing.to_string().starts_with("cannot reach the journal at "), "{missing}");
        let full =
            (0..100_000).find_map(|_| journal.send(&[("MESSAGE", b"x")]).err()).expect("the socket's queue ends");
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(socket);
        let gone = journal.send(&[("MESSAGE", b"x")]).expect_err("the socket is gone");
        assert_eq!(gone.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn names_of_fields_follow_the_rules_of_the_journal() {
        let names = [
            ("request_id", Some("REQUEST_ID")),
            ("http.route", Some("HTTP_ROUTE")),
            ("@version", Some("VERSION")),
            ("@timestamp", None),
            ("_HOSTNAME", Some("HOSTNAME")),
            ("2xx_answers", Some("XX_ANSWERS")),
            ("größe", Some("GR__E")),
            ("", None),
            ("__1", None),
        ];
        for (name, expected) in names {
            assert_eq!(field_name(name).as_deref(), expected, "{name:?}");
        }
        let long = field_name(&"n".repeat(100)).expect("a name");
        assert_eq!(long.len(), NAME_CHARS_MAX);
        let (_folder, _socket, journal) = journal();
        for refused in ["", "_PID", "1ST", "lower", "A=B", "A\nB", &"N".repeat(65)] {
            let error = journal.send(&[(refused, b"x")]).expect_err("not a name");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{refused:?}");
        }
    }

    #[test]
    fn priorities_are_those_of_syslog() {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(levels.map(priority), [3, 4, 6, 7, 7]);
    }

    #[test]
    fn the_journal_is_recognised_by_device_and_inode() {
        let file = tempfile::tempfile().expect("a file");
        let of_file = file.metadata().expect("metadata");
        let (device, inode) = (of_file.dev(), of_file.ino());
        assert!(names_file(&format!("{device}:{inode}"), &file));
        for other in [format!("{device}:{}", inode + 1), format!("{}:{inode}", device + 1), "what".to_owned()] {
            assert!(!names_file(&other, &file), "{other}");
        }
        assert!(!is_journal(&Environment::default()));
        let another = Environment::from_iter([("JOURNAL_STREAM", format!("{device}:{inode}"))]);
        assert!(!is_journal(&another), "standard error is another file");
    }
}
