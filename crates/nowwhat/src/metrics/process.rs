//! The standard metrics of a process, by the names all of Prometheus' client libraries use.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};

/// The unit of times in `/proc`, the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The standard metrics of a process, read from `/proc` when they are asked for.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: Option<f64>| {
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("process_resident_memory_bytes", "Resident memory", resident_bytes())?;
        gauge("process_virtual_memory_bytes", "Memory the process has addresses for", stat_field(23))?;
        gauge("process_open_fds", "Open file descriptors", open_fds())?;
        gauge("process_max_fds", "File descriptors the process may open", max_fds())?;
        gauge("process_threads", "Threads", stat_field(20))?;
        gauge("process_start_time_seconds", "Start of the process since the epoch", start_seconds())?;
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "Processor time used, user and system";
            counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

fn open_fds() -> Option<f64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

/// The soft limit; none when there is no limit.
fn max_fds() -> Option<f64> {
    getrlimit(Resource::Nofile).current.map(|limit| limit as f64)
}

/// A field of `/proc/self/stat` by its number in proc(5).
fn stat_field(number: usize) -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the name, may hold spaces and ends with the last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat_field(14)? + stat_field(15)?) / TICKS_PER_SECOND)
}

fn start_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat_field(22)? / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    fn sample(name: &str) -> f64 {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let mut text = String::new();
        encode(&mut text, &registry).expect("a text");
        let line =
            text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("{text}"));
        line.parse().expect("a number")
    }

    #[test]
    fn the_numbers_are_those_of_this_process() {
        let resident = sample("process_resident_memory_bytes");
        assert!(resident > 100_000.0 && sample("process_virtual_memory_bytes") >= resident);
        let limits = std::fs::read_to_string("/proc/self/limits").expect("limits");
        let limit = limits.lines().find_map(|l| l.strip_prefix("Max open files")).expect("a limit");
        let soft = limit.split_whitespace().next().expect("a number");
        assert_eq!(soft.parse().ok(), Some(sample("process_max_fds")));
        let before = sample("process_open_fds");
        let files: Vec<_> = (0..20).map(|_| std::fs::File::open("/proc/self/stat").expect("a file")).collect();
        assert!(sample("process_open_fds") >= before + 15.0, "{before}");
        drop(files);
        assert!(sample("process_threads") >= 1.0 && sample("process_cpu_seconds_total") >= 0.0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
        assert!((now - sample("process_start_time_seconds")).abs() < 3600.0);
    }
}
