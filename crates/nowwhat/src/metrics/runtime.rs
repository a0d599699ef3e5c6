//! What tokio's runtime says of itself, by its stable interface alone.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::runtime::{Handle, RuntimeMetrics};

/// Adds the metrics of a runtime to `registry`; of one runtime, since their names are the same for each.
pub fn register_runtime(registry: &mut Registry, runtime: &Handle) {
    registry.register_collector(Box::new(Runtime(runtime.metrics())));
}

/// A runtime, asked when its metrics are.
#[derive(Debug)]
struct Runtime(RuntimeMetrics);

impl Collector for Runtime {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: usize| {
            let gauge = ConstGauge::new(value as f64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("runtime_workers", "Threads that run tasks", self.0.num_workers())?;
        gauge("runtime_tasks", "Tasks that have not ended", self.0.num_alive_tasks())?;
        gauge("runtime_queue_depth", "Tasks that wait for any worker", self.0.global_queue_depth())?;
        // Processors without 64-bit atomics cannot count these.
        #[cfg(target_has_atomic = "64")]
        {
            let workers = 0..self.0.num_workers();
            let busy = workers.clone().map(|n| self.0.worker_total_busy_duration(n).as_secs_f64()).sum::<f64>();
            let parks = workers.map(|n| self.0.worker_park_count(n) as f64).sum::<f64>();
            let mut counter = |name: &str, help: &str, value: f64| {
                let counter = ConstCounter::new(value);
                counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
            };
            counter("runtime_busy_seconds", "Time the workers were not idle, all of them together", busy)?;
            counter("runtime_parks", "Times a worker found nothing to do", parks)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use std::time::{Duration, Instant};

    fn sample(registry: &Registry, name: &str) -> f64 {
        let mut text = String::new();
        encode(&mut text, registry).expect("a text");
        let line =
            text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("{text}"));
        line.parse().expect("a number")
    }

    #[test]
    fn the_runtime_tells_its_workers_its_tasks_and_the_time_they_were_busy() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
        let mut registry = Registry::default();
        register_runtime(&mut registry, runtime.handle());
        assert_eq!((sample(&registry, "runtime_workers"), sample(&registry, "runtime_tasks")), (2.0, 0.0));
        let waiting: Vec<_> = (0..3).map(|_| runtime.spawn(std::future::pending::<()>())).collect();
        assert_eq!(sample(&registry, "runtime_tasks"), 3.0);
        let before = sample(&registry, "runtime_busy_seconds_total");
        let work = runtime.spawn(async {
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(50) {
                std::hint::spin_loop();
            }
        });
        runtime.block_on(work).expect("done");
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        // A worker tells its time when it next has nothing to do.
        let deadline = Instant::now() + Duration::from_secs(20);
        while sample(&registry, "runtime_busy_seconds_total") < before + 0.05
            || sample(&registry, "runtime_tasks") > 0.0
        {
            assert!(Instant::now() < deadline, "the time never came");
            std::thread::yield_now();
        }
        assert!(sample(&registry, "runtime_parks_total") >= 1.0 && sample(&registry, "runtime_queue_depth") >= 0.0);
    }
}
