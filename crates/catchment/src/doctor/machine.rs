//! What the machine gives: descriptors, memory, a clock that is right.

use super::Finding;
use super::unit::Limits;
use nowwhat::config::ByteSize;
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::process::Command;

/// Files of the wal, the lake, SQLite and of queries, beside connections.
const FILES: u64 = 500;

pub(super) fn descriptors(connections_max: u64, unit: Option<&Limits>) -> Finding {
    let needed = connections_max + FILES;
    // The start raises the soft limit to the hard one.
    let most = match unit {
        Some(unit) => unit.descriptors,
        None => getrlimit(Resource::Nofile).maximum,
    };
    match most {
        Some(most) if most < needed => Finding::bad(
            "descriptors",
            format!(
                "{most} may be open, http.connections_max = {connections_max} and files take up to {needed}: raise LimitNOFILE (systemd) or `ulimit -n`"
            ),
        ),
        Some(most) => Finding::good("descriptors", format!("{most} may be open, up to {needed} are taken")),
        None => Finding::good("descriptors", format!("no limit, up to {needed} are taken")),
    }
}

pub(super) fn memory(bound: ByteSize, unit: Option<&Limits>) -> Finding {
    let group = match unit {
        Some(unit) => ("of the unit", unit.memory_bytes),
        None => ("of this control group", group_memory_bytes()),
    };
    let limits = [("of the machine", machine_memory_bytes()), group];
    let least = limits.into_iter().filter_map(|(whose, bytes)| Some((whose, bytes?))).min_by_key(|(_, bytes)| *bytes);
    let Some((whose, bytes)) = least else {
        return Finding::look(
            "memory",
            format!("how much there is cannot be told; the bound of the collector is {bound}"),
        );
    };
    let text = format!("{} MiB {whose}, the bound of the collector is {} MiB", bytes >> 20, bound.0 >> 20);
    if bytes < bound.0 {
        return Finding::bad(
            "memory",
            format!(
                "{text}: lower ingest.in_flight_bytes_max, query.memory_bytes_max or window.keys_max, or give it more (`MemoryMax=` of the unit)"
            ),
        );
    }
    Finding::good("memory", text)
}

fn machine_memory_bytes() -> Option<u64> {
    let told = fs::read_to_string("/proc/meminfo").ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

/// The limit of the control group of this process and of those above it: of a shell beside the collector's, where no unit is known.
fn group_memory_bytes() -> Option<u64> {
    let told = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = told.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = std::path::Path::new("/sys/fs/cgroup");
    let whole = root.join(group);
    let above = whole.ancestors().take_while(|dir| dir.starts_with(root));
    above.filter_map(|dir| fs::read_to_string(dir.join("memory.max")).ok()?.trim().parse().ok()).min()
}

/// Whether something sets the clock. Only systemd is asked, which also knows of other programs' work: it reads the kernel's own mark.
pub(super) fn clock() -> Finding {
    let asked = Command::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]).output();
    let told = asked.ok().filter(|output| output.status.success());
    match told.as_ref().map(|output| output.stdout.trim_ascii()) {
        Some(b"yes") => Finding::good("clock", "synchronised"),
        Some(b"no") => Finding::look(
            "clock",
            "not synchronised: `received_at` and times of receipt are as wrong as it is; install systemd-timesyncd or chrony",
        ),
        _ => Finding::look("clock", "whether it is synchronised cannot be told: `timedatectl` does not answer"),
    }
}
