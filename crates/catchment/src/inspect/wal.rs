//! `catchment inspect wal`: what lies in the wal, and what of it is damaged. It changes nothing.

use super::repair::known;
use super::{FolderArgs, now, unread};
use anyhow::bail;
use clap::Args;
use nowwhat::Environment;
use nowwhat::cli::{print, printable};
use serde_json::{Value, json};
use std::fmt::Write;
use std::io::ErrorKind;
use std::path::Path;
use uuid::Uuid;
use wal::{Damage, End, FrameLook, KeysLook, Look, RealDisk, Segment};

#[derive(Args)]
pub(crate) struct WalArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// Also each group: position, events, bytes, offset.
    #[arg(long)]
    frames: bool,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// `catchment inspect wal`.
pub(super) fn run(args: &WalArgs, environment: &Environment) -> anyhow::Result<()> {
    let settings = args.folder.settings(environment)?;
    let data = std::path::absolute(&settings.data.dir)?;
    let dir = data.join("wal");
    there(&dir)?;
    let known = known(&settings, &data);
    let look = wal::look(&dir, &RealDisk, &known, engine::check_payload).map_err(|error| unread(&dir, error))?;
    let sealed = sealed(&data, look.wal_id.or(known.wal_id));
    let shown = Shown { look: &look, sealed, frames: args.frames };
    print(if args.json { format!("{}\n", shown.json()) } else { shown.lines() })?;
    if !look.is_damaged() {
        return Ok(());
    }
    let is_newer = look.segments.iter().all(|segment| segment.damage.is_empty()) && look.bad_newest.is_none();
    if is_newer && look.key_files.iter().all(|keys| keys.damage.is_none()) {
        bail!(
            "the wal has groups that this program cannot read: a newer program wrote them: install that version again, or restore a \
             backup made before the upgrade"
        );
    }
    bail!(
        "the wal is damaged: stop the collector if one runs, and `catchment inspect repair` keeps what can be read and moves the \
         rest aside"
    )
}

/// Says where a wal would be when there is none.
pub(super) fn there(dir: &Path) -> anyhow::Result<()> {
    match std::fs::metadata(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "there is no wal in {}: a collector makes it at its first start; say with --data-dir where it is",
            dir.display()
        ),
        found => found.map(drop).map_err(|error| unread(dir, error)),
    }
}

/// Up to which position the lake has what was in this wal; none when that cannot be told.
pub(super) fn sealed(data: &Path, wal: Option<Uuid>) -> Option<u64> {
    let lake = data.join("lake");
    now(lake::look_for(&lake, wal?)).ok()?.ok().map(|snapshot| snapshot.sealed)
}

struct Shown<'a> {
    look: &'a Look,
    sealed: Option<u64>,
    frames: bool,
}

impl Shown<'_> {
    fn lines(&self) -> String {
        let look = self.look;
        let mut text = format!("wal      {}", look.dir.display());
        let _ = writeln!(
            text,
            "{}{}",
            look.wal_id.map(|id| format!(", {id}")).unwrap_or_default(),
            if look.is_in_use { ", in use" } else { "" }
        );
        let (events, frames) = totals(look);
        let bytes: u64 = look.segments.iter().map(|segment| segment.bytes).sum();
        let _ = writeln!(text, "holds    {events} events in {frames} groups{}", range(look));
        if let Some(sealed) = self.sealed.filter(|sealed| *sealed > 0) {
            let _ = writeln!(text, "sealed   up to position {sealed}: the lake has these events as well");
        }
        let _ = writeln!(text, "segments {}, {:.1} MB", look.segments.len(), bytes as f64 / 1e6);
        for segment in &look.segments {
            let _ = writeln!(text, "         {}", of_segment(segment));
            for frame in segment.frames.iter().filter(|_| self.frames) {
                let FrameLook { offset, bytes, first_position, event_count, .. } = frame;
                let _ = writeln!(
                    text,
                    "         position {first_position}, {event_count} events, {bytes} bytes at offset {offset}"
                );
            }
        }
        for KeysLook { path, first, last, .. } in &look.key_files {
            let _ = writeln!(text, "keys     {}: of positions {first} to {last}", name(path));
        }
        for (path, bytes) in &look.torn_files {
            let _ = writeln!(text, "torn     {}: {bytes} bytes that a start cut off", path.display());
        }
        for (first, last) in look.segments.iter().flat_map(|segment| &segment.lost) {
            let _ = writeln!(text, "lost     positions {first} to {last}: a repair before found no events of them");
        }
        let bad = self.bad();
        for line in &bad {
            let _ = writeln!(text, "BAD      {}", printable(line));
        }
        if bad.is_empty() {
            text += "good     all of it can be read\n";
        } else if let Some((first, last)) = look.saved().lost {
            let most = look.saved().lost_events_max;
            let _ = writeln!(
                text,
                "gone     {most} events at most, of positions {first} to {last}{}",
                in_lake(first, last, self.sealed)
            );
        }
        text
    }

    fn bad(&self) -> Vec<String> {
        let mut bad = Vec::new();
        for segment in &self.look.segments {
            let path = segment.path.display();
            for Damage { offset, bytes, what, lost } in &segment.damage {
                let gone = lost.map(|(first, last)| format!("; of positions {first} to {last}")).unwrap_or_default();
                bad.push(format!("{path} at offset {offset}, {bytes} bytes: {what}{gone}"));
            }
            for FrameLook { offset, bytes, first_position, flaw, .. } in &segment.frames {
                let flaw = flaw.iter().map(|flaw| {
                    format!("{path} at offset {offset}, {bytes} bytes: the group at position {first_position}: {flaw}")
                });
                bad.extend(flaw);
            }
        }
        for KeysLook { path, first, last, damage, .. } in &self.look.key_files {
            let damage = damage.iter().map(|damage| {
                format!("{}: {damage}; no event is in it, but by what repeated ids of positions {first} to {last} are known", path.display())
            });
            bad.extend(damage);
        }
        let newest = self.look.bad_newest.iter();
        bad.extend(newest.map(|(path, what)| format!("{}: {what}; no event is in it", path.display())));
        bad
    }

    fn json(&self) -> Value {
        let look = self.look;
        let segment = |segment: &Segment| {
            let frame = |frame: &FrameLook| {
                let FrameLook { offset, bytes, first_position, event_count, flaw } = frame;
                json!({"offset": offset, "bytes": bytes, "position": first_position, "events": event_count, "damage": flaw})
            };
            let mut shown = json!({
                "path": segment.path, "position": {"min": segment.first, "max": segment.next - 1},
                "groups": segment.frames.len(), "events": segment.events(), "bytes": segment.bytes,
                "end": end(&segment.end), "damage": segment.damage.iter().map(damage).collect::<Vec<_>>(),
                "lost": segment.lost.iter().map(positions).collect::<Vec<_>>(),
            });
            if let End::Torn { offset, bytes } = segment.end {
                shown["torn"] = json!({"offset": offset, "bytes": bytes});
            }
            if self.frames {
                shown["frames"] = segment.frames.iter().map(frame).collect();
            }
            shown
        };
        let keys = |keys: &KeysLook| {
            let KeysLook { path, first, last, bytes, damage } = keys;
            json!({"path": path, "position": {"min": first, "max": last}, "bytes": bytes, "damage": damage})
        };
        let torn = |(path, bytes): &(std::path::PathBuf, u64)| json!({"path": path, "bytes": bytes});
        let ((events, frames), saved) = (totals(look), look.saved());
        json!({
            "wal": look.dir, "id": look.wal_id, "in_use": look.is_in_use, "damaged": look.is_damaged(),
            "events": events, "groups": frames, "sealed_position": self.sealed,
            "lost_events_max": saved.lost_events_max, "lost": saved.lost.as_ref().map(positions),
            "segments": look.segments.iter().map(segment).collect::<Vec<_>>(),
            "key_files": look.key_files.iter().map(keys).collect::<Vec<_>>(),
            "newest": look.bad_newest.as_ref().map(|(path, what)| json!({"path": path, "damage": what})),
            "torn_files": look.torn_files.iter().map(torn).collect::<Vec<_>>(),
        })
    }
}

/// A damage as JSON.
pub(super) fn damage(damage: &Damage) -> Value {
    let Damage { offset, bytes, what, lost } = damage;
    json!({"offset": offset, "bytes": bytes, "what": what, "lost": lost.as_ref().map(positions)})
}

/// A range of positions as JSON.
pub(super) fn positions((first, last): &(u64, u64)) -> Value {
    json!({"min": first, "max": last})
}

/// Events and groups that can be read.
pub(super) fn totals(look: &Look) -> (u64, usize) {
    (look.segments.iter().map(Segment::events).sum(), look.segments.iter().map(|segment| segment.frames.len()).sum())
}

/// What of lost positions the lake has.
pub(super) fn in_lake(first: u64, last: u64, sealed: Option<u64>) -> String {
    match sealed {
        Some(sealed) if last <= sealed => ": the lake has all of them".to_owned(),
        Some(sealed) if first <= sealed => format!(": the lake has those up to {sealed}"),
        Some(_) => ": the lake has none of them".to_owned(),
        None => String::new(),
    }
}

fn range(look: &Look) -> String {
    let frames = || look.segments.iter().flat_map(|segment| &segment.frames);
    match (frames().next(), frames().last()) {
        (Some(first), Some(last)) => {
            format!(", positions {} to {}", first.first_position, last.first_position + u64::from(last.event_count) - 1)
        }
        _ => String::new(),
    }
}

fn of_segment(segment: &Segment) -> String {
    let (name, frames, events) = (name(&segment.path), segment.frames.len(), segment.events());
    let end = match segment.end {
        End::Torn { offset, bytes } => {
            format!(
                "{bytes} bytes at offset {offset} are no whole group, as a write leaves them that was cut off before its answer (damage there looks the same): the next start cuts them off and keeps them"
            )
        }
        ref other => end(other).to_owned(),
    };
    match segment.next - 1 {
        last if last >= segment.first => {
            format!("{name}: positions {} to {last}, {frames} groups, {events} events, {end}", segment.first)
        }
        _ => format!("{name}: nothing yet, {end}"),
    }
}

fn end(end: &End) -> &'static str {
    match end {
        End::Clean => "ended",
        End::Open => "open",
        End::Torn { .. } => "torn",
        End::Damaged => "damaged",
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
