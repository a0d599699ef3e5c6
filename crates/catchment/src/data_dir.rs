//! The data folder: what lies in it, and what commands read there.

use anyhow::{Context, bail, ensure};
use http::Uri;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, FileType, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The names of files in one folder, and how other ones end.
type Names = (&'static [&'static str], &'static [&'static str]);
const OF_DATA: Names = (
    &[
        "registry.sqlite",
        "registry.sqlite-wal",
        "registry.sqlite-shm",
        "rejected.sqlite",
        "rejected.sqlite-wal",
        "rejected.sqlite-shm",
        "admin.token",
        "addresses.json",
        "restores.json",
    ],
    &[],
);
const OF_WAL: Names = (&["newest", "lock"], &["wal", "keys"]);
const OF_LAKE: Names = (&["_clock", "_clock.new"], &[]);
const OF_LOG: Names = (&["_last_checkpoint"], &["json", "crc", "parquet"]);
const OF_DAY: Names = (&[], &["parquet"]);
const KEPT_FOR: &str = "the collector has this name for a";
const MOVE_AWAY: &str = "move it away, and bring back what was there, if something was; nothing was changed";

/// The data folder of the package's unit.
pub(crate) const OF_PACKAGE: &str = "/var/lib/catchment";

/// The addresses really bound, as `addresses.json` holds them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) api: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Whether the API is served over TLS.
    #[serde(default)]
    pub(crate) tls: bool,
    /// The certificate that it serves, in DER: commands know the collector by it.
    #[serde(default, with = "in_base64", skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<Vec<u8>>,
    /// Whether it lets nobody in who shows no certificate.
    #[serde(default)]
    pub(crate) client_certificates_required: bool,
}

impl Addresses {
    /// The address of the API, as a client on this machine asks it.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, reached(self.api))
    }

    /// The address of the admin listener, as a client on this machine asks it.
    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", reached(self.admin))
    }

    /// Whether who asks this address comes to this collector, and to nobody else. `127.0.0.1` and `[::1]` are two addresses, and may be
    /// two programs.
    pub(crate) fn is_asked_at(&self, url: &Uri) -> bool {
        let bound = self.api.ip();
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_host = match host.parse::<IpAddr>() {
            Ok(ip) => ip == bound || bound.is_unspecified() && ip.is_loopback() && ip.is_ipv4() == bound.is_ipv4(),
            Err(_) => host.eq_ignore_ascii_case("localhost") && (bound.is_loopback() || bound.is_unspecified()),
        };
        let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
        is_host && port == self.api.port() && matches!(url.path(), "" | "/")
    }
}

/// Where this machine reaches what is bound at `address`: "every address" is none.
fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

mod in_base64 {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(|bytes| STANDARD.encode(bytes)).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| STANDARD.decode(text)).transpose().map_err(D::Error::custom)
    }
}

/// Addresses that commands believe.
#[derive(Debug)]
pub(crate) struct Published {
    path: PathBuf,
    file: File,
    addresses: Addresses,
}

impl Published {
    /// Tells the certificate that is served now; whoever looks meanwhile is told the one before.
    pub(crate) fn renew(&mut self, certificate: Vec<u8>) -> anyhow::Result<()> {
        let newer = Addresses { certificate: Some(certificate), ..self.addresses.clone() };
        if newer.certificate != self.addresses.certificate {
            self.file = written(&newer, &self.path)?;
            self.addresses = newer;
        }
        Ok(())
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // A file that stays behind is believed by nobody. Another folder may be in the place of ours by now, with a collector of its own.
        let ours = self.file.metadata().map(|file| (file.dev(), file.ino())).ok();
        if ours.is_some() && ours == fs::metadata(&self.path).map(|file| (file.dev(), file.ino())).ok() {
            drop(fs::remove_file(&self.path));
        }
        drop(self.file.unlock());
    }
}

/// The folder of all data.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
}

impl DataDir {
    pub(crate) fn of(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// Makes the folder, for its owner alone.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let failed = || format!("cannot make the data folder {}", path.display());
        let absolute = std::path::absolute(path).with_context(failed)?;
        ensure!(
            !is_no_folder(&absolute),
            "{}: what is there is no folder: choose another one, or move it away",
            failed()
        );
        let new = absolute.ancestors().take_while(|folder| !folder.exists()).count();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&absolute).with_context(failed)?;
        // Without its name the folder would be gone after a power cut, with all that is accepted.
        for (i, above) in absolute.ancestors().skip(1).take(new.max(1)).enumerate() {
            match fs::File::open(above).and_then(|above| above.sync_all()) {
                // It was there, in a folder that is not ours to open.
                Err(_) if i >= new => {}
                synced => synced.with_context(failed)?,
            }
        }
        let path = fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.path.join("wal")
    }

    pub(crate) fn lake(&self) -> PathBuf {
        self.path.join("lake")
    }

    pub(crate) fn spill(&self) -> PathBuf {
        self.path.join("spill")
    }

    /// Where the collector holds what is being backed up.
    pub(crate) fn snapshot(&self) -> PathBuf {
        self.path.join("snapshot")
    }

    pub(crate) fn rejected(&self) -> PathBuf {
        self.path.join("rejected.sqlite")
    }

    pub(crate) fn registry_url(&self) -> String {
        format!("sqlite://{}", self.registry_path().display())
    }

    /// Whether a collector ran over it.
    pub(crate) fn has_events(&self) -> bool {
        self.wal().exists() || self.lake().exists()
    }

    /// Whether there is a registry from before.
    pub(crate) fn has_registry(&self) -> bool {
        self.registry_path().exists()
    }

    pub(crate) fn registry_path(&self) -> PathBuf {
        self.path.join("registry.sqlite")
    }

    pub(crate) fn admin_token_path(&self) -> PathBuf {
        self.path.join("admin.token")
    }

    pub(crate) fn sensor_token_path(&self, name: &str) -> PathBuf {
        self.path.join("sensors").join(format!("{name}.token"))
    }

    /// There while a backup is being restored into this folder.
    pub(crate) fn unfinished_path(&self) -> PathBuf {
        self.path.join("restore.unfinished")
    }

    /// Whether it may be used: one into which a backup was not wholly restored may not, nor one where something else has the name of a file.
    pub(crate) fn is_whole(&self) -> anyhow::Result<()> {
        ensure!(
            !self.unfinished_path().exists(),
            "{} is not whole: a backup is being restored into it, or a restore was interrupted. Run `catchment restore` again, to its end",
            self.path.display()
        );
        self.names_are_kept()
    }

    /// A folder that is read as a file looks like a disk that fails, and a pipe is waited for.
    fn names_are_kept(&self) -> anyhow::Result<()> {
        let log = self.lake().join("_delta_log");
        let inside = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_day =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("received_date="));
        let days: Vec<_> = inside(&self.lake()).filter(is_day).collect();
        let sensors = self.path.join("sensors");
        for folder in
            [&self.wal(), &self.lake(), &log, &self.spill(), &self.snapshot(), &sensors].into_iter().chain(&days)
        {
            if let Some(what) = fs::metadata(folder).ok().filter(|found| !found.is_dir()) {
                bail!("{} is {}, and {KEPT_FOR} folder: {MOVE_AWAY}", folder.display(), kind(what.file_type()));
            }
        }
        let places = [(&self.path, OF_DATA), (&self.wal(), OF_WAL), (&self.lake(), OF_LAKE), (&log, OF_LOG)];
        for (folder, names) in places.into_iter().chain(days.iter().map(|day| (day, OF_DAY))) {
            files_for_files(folder, names)?;
        }
        Ok(())
    }

    /// Whether this user may write to it and to what lies in it. A file that somebody else left, as with a start as root, would be found much later.
    pub(crate) fn is_ours(&self) -> anyhow::Result<()> {
        // Root may write everywhere, and the owner nowhere afterwards.
        let owner = fs::metadata(&self.path).map_or(0, |found| found.uid());
        if rustix::process::geteuid().is_root() && owner != 0 {
            let (path, owner) = (self.path.display(), user(owner));
            bail!(
                "{path} belongs to {owner}, who could not write to what root leaves there: run this as its owner, `sudo -u {owner} catchment …`, or \
                 make all of it root's, `chown -R root {path}`"
            );
        }
        writable(&self.path, &self.path)?;
        let inside = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in inside(self.path.clone()).chain(inside(self.wal())).chain(inside(self.lake())) {
            // What goes meanwhile is nobody's.
            if !path.is_symlink() && path.exists() {
                writable(&path, &self.path)?;
            }
        }
        Ok(())
    }

    fn addresses_path(&self) -> PathBuf {
        self.path.join("addresses.json")
    }

    /// The addresses of the collector that runs over this folder; none when none does. One that was killed leaves its addresses behind, and anybody
    /// may listen there by now: they are believed only while the one that wrote them holds their file.
    pub(crate) fn addresses(&self) -> Option<Addresses> {
        let mut file = opened(&self.addresses_path()).ok()?;
        if !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
            return None;
        }
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Why it cannot be told whether a collector runs over this folder, if that is kept from this user.
    pub(crate) fn kept_from_us(&self) -> Option<anyhow::Error> {
        let path = self.addresses_path();
        let denied = opened(&path).err().filter(|error| error.kind() == ErrorKind::PermissionDenied)?;
        Some(anyhow::Error::new(denied).context(format!("cannot read {}", path.display())))
    }

    /// Tells the addresses of this process to commands, as long as what is returned is there.
    pub(crate) fn publish(&self, addresses: Addresses) -> anyhow::Result<Published> {
        let path = self.addresses_path();
        Ok(Published { file: written(&addresses, &path)?, path, addresses })
    }

    /// A token kept in a file; none when there is no such file.
    pub(crate) fn token(path: &Path) -> anyhow::Result<Option<String>> {
        match opened(path).and_then(io::read_to_string) {
            Ok(text) if nowwhat::bearer::can_be_sent(text.trim()) => Ok(Some(text.trim().to_owned())),
            Ok(_) => bail!("{} has no token that a request can send: visible ASCII without blanks", path.display()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read the token in {}", path.display())),
        }
    }

    /// Keeps a token for its owner alone.
    pub(crate) fn keep_token(path: &Path, token: &str) -> anyhow::Result<()> {
        write_private(path, &format!("{token}\n"), |_| Ok(())).map(drop)
    }
}

/// Fails where something in the folder that has the name of a file is none. What a link leads to counts; what goes meanwhile is nobody's.
fn files_for_files(folder: &Path, (names, ends): Names) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let is_kept = names.iter().any(|kept| name == *kept)
            || path.extension().is_some_and(|extension| ends.iter().any(|end| extension == *end));
        let Some(what) = entry.file_type().ok().filter(|what| is_kept && !what.is_file()) else { continue };
        let what = match fs::metadata(&path) {
            Ok(found) if found.is_file() => continue,
            Ok(found) => kind(found.file_type()),
            Err(_) if what.is_symlink() => "a link that leads nowhere",
            Err(_) => continue,
        };
        bail!("{} is {what}, and {KEPT_FOR} file: {MOVE_AWAY}", path.display());
    }
    Ok(())
}

/// Opens a file to read it. What has its name and is none, as a pipe, might be waited for.
pub(crate) fn opened(path: &Path) -> io::Result<File> {
    if fs::metadata(path)?.is_file() { File::open(path) } else { Err(io::Error::other("it is no file")) }
}

/// Whether there is something that leads to no folder. What may not be looked at is told by whoever opens it.
pub(crate) fn is_no_folder(path: &Path) -> bool {
    match fs::metadata(path) {
        Ok(found) => !found.is_dir(),
        Err(error) => error.kind() == ErrorKind::NotFound && path.is_symlink(),
    }
}

/// What else than a file or a folder has a name.
fn kind(what: FileType) -> &'static str {
    match what {
        what if what.is_dir() => "a folder",
        what if what.is_fifo() => "a pipe",
        what if what.is_socket() => "a socket",
        what if what.is_file() => "a file",
        _ => "a device",
    }
}

/// The name of a user, as `sudo -u` takes it.
fn user(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let is_it = |line: &&str| line.split(':').nth(2) == Some(&uid.to_string());
    let name = users.lines().find(is_it).and_then(|line| line.split(':').next());
    name.map_or_else(|| format!("'#{uid}'"), str::to_owned)
}

/// Fails unless this process may write to what lies in the folder, and says who may.
fn writable(path: &Path, dir: &Path) -> anyhow::Result<()> {
    let access = if path.is_dir() { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
    let Err(error) = accessat(CWD, path, access | Access::READ_OK, AtFlags::EACCESS) else {
        return Ok(());
    };
    let (shown, all, process) = (path.display(), dir.display(), rustix::process::geteuid().as_raw());
    let owner = fs::metadata(path).map(|found| (found.uid(), found.mode() & 0o7777));
    let what = match owner.with_context(|| format!("cannot look at {shown}"))? {
        _ if error == Errno::ROFS => {
            "it lies on a file system that is mounted read-only; mount it for writing, or choose another folder as data.dir".to_owned()
        }
        (uid, mode) if uid == process => {
            format!("it is this user's, and its mode {mode:04o} does not let it: `chmod -R u+rwX {all}`")
        }
        (uid, mode) => format!(
            "it belongs to uid {uid} with mode {mode:04o}, and this process runs as uid {process}: run it as its owner, or `chown -R {process} {all}`"
        ),
    };
    Err(anyhow::Error::new(std::io::Error::from(error)).context(format!("cannot write to {shown}: {what}")))
}

/// The file of the addresses, held so that commands believe it.
fn written(addresses: &Addresses, path: &Path) -> anyhow::Result<File> {
    let text = serde_json::to_string(addresses).context("cannot write the addresses")? + "\n";
    write_private(path, &text, File::lock)
}

/// Writes a file with mode 0600, whole or not at all; `then` is done with it before anybody finds it.
fn write_private(path: &Path, text: &str, then: impl FnOnce(&File) -> std::io::Result<()>) -> anyhow::Result<File> {
    let staged = path.with_extension("new");
    let write = || -> std::io::Result<File> {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        drop(fs::remove_file(&staged));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        then(&file)?;
        fs::rename(&staged, path)?;
        Ok(file)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound_at(api: &str) -> Addresses {
        let (api, admin) = (api.parse().expect("an address"), ([127, 0, 0, 1], 1).into());
        Addresses { api, admin, tls: false, certificate: None, client_certificates_required: false }
    }

    #[test]
    fn commands_ask_a_collector_that_listens_at_every_address_over_loopback() {
        for (api, url) in [
            ("0.0.0.0:4711", "http://127.0.0.1:4711"),
            ("[::]:4711", "http://[::1]:4711"),
            ("192.0.2.1:4711", "http://192.0.2.1:4711"),
        ] {
            assert_eq!(bound_at(api).url(), url);
        }
    }

    #[test]
    fn what_is_published_is_believed_while_it_is_held_and_renewed_without_a_gap() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = DataDir::of(folder.path());
        let addresses = Addresses { certificate: Some(b"old".to_vec()), ..bound_at("0.0.0.0:1") };
        let mut published = dir.publish(addresses).expect("published");
        assert_eq!(dir.addresses().expect("held").certificate.as_deref(), Some(b"old".as_slice()));
        published.renew(b"new".to_vec()).expect("renewed");
        assert_eq!(dir.addresses().expect("still held").certificate.as_deref(), Some(b"new".as_slice()));
        drop(published);
        assert!(dir.addresses().is_none());
        // One of before certificates were told.
        let of_before: Addresses =
            serde_json::from_str(r#"{"api":"127.0.0.1:1","admin":"127.0.0.1:2","tls":true}"#).expect("read");
        assert!(of_before.tls && of_before.certificate.is_none());
    }

    #[test]
    fn an_address_is_that_of_the_collector_when_nobody_else_can_listen_there() {
        let is_at = |api: &str, url: &'static str| {
            let addresses = bound_at(api);
            addresses.is_asked_at(&Uri::from_static(url))
        };
        for (api, url) in [
            ("127.0.0.1:4711", "http://127.0.0.1:4711"),
            ("127.0.0.1:4711", "https://127.0.0.1:4711/"),
            ("127.0.0.1:4711", "http://LocalHost:4711"),
            ("127.0.0.1:80", "http://127.0.0.1"),
            ("127.0.0.1:443", "https://localhost"),
            ("[::1]:4711", "http://[::1]:4711"),
            ("[::1]:4711", "http://localhost:4711"),
            ("0.0.0.0:4711", "http://127.0.0.1:4711"),
            ("0.0.0.0:4711", "http://0.0.0.0:4711"),
            ("[::]:4711", "http://[::1]:4711"),
            ("192.0.2.1:4711", "http://192.0.2.1:4711"),
        ] {
            assert!(is_at(api, url), "{api} {url}");
        }
        for (api, url) in [
            ("127.0.0.1:4711", "http://127.0.0.1:4712"),
            ("127.0.0.1:4711", "http://127.0.0.1"),
            ("127.0.0.1:4711", "http://127.0.0.2:4711"),
            ("127.0.0.1:4711", "http://[::1]:4711"),
            ("127.0.0.1:4711", "http://example.com:4711"),
            ("127.0.0.1:4711", "http://localhost.example.com:4711"),
            ("127.0.0.1:4711", "http://127.0.0.1:4711/other"),
            ("0.0.0.0:4711", "http://192.0.2.1:4711"),
            ("0.0.0.0:4711", "http://[::1]:4711"),
            ("192.0.2.1:4711", "http://localhost:4711"),
        ] {
            assert!(!is_at(api, url), "{api} {url}");
        }
    }
}
