//! One life of an engine on a disk: from its start to its end, whatever that is.

use super::oracle::{Found, Sent};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use engine::{
    AcceptError, Clock, Engine, EngineMetrics, Erasing, Options, Outcome, Reading, Retention, StartError, Submission,
};
use event::{FieldNames, FieldRules, Framing, Limits, ReadOptions};
use lake::LakeMetrics;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prometheus_client::registry::Registry;
use std::fs::File;
use std::path::Path;
use std::time::Duration;
use testkit::{Mounted, SimClock, SimDisk, mount};
use tokio::runtime::Runtime;

/// What an engine is given besides its disk.
#[derive(Clone, Debug)]
pub(crate) struct Around {
    pub(crate) clock: SimClock,
    pub(crate) retention: Retention,
}

pub(crate) struct Life {
    pub(crate) engine: Engine,
    pub(crate) runtime: Runtime,
    registry: Registry,
    // Last: the engine's files are in it.
    _mounted: Mounted,
}

impl Life {
    /// Starts an engine on the disk, which is put into the folder.
    pub(crate) fn begin(disk: &SimDisk, folder: &Path, around: &Around) -> Result<Self, StartError> {
        let mounted = mount(disk, folder).expect("FUSE: tests of the disk need /dev/fuse and the right to mount");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut registry = Registry::default();
        let (metrics, lake) = (EngineMetrics::register(&mut registry), LakeMetrics::register(&mut registry));
        let started = runtime.block_on(Engine::start(options(folder, around), metrics, lake));
        match started {
            Ok((engine, _)) => Ok(Self { engine, runtime, registry, _mounted: mounted }),
            Err(error) => {
                runtime.shutdown_timeout(Duration::from_secs(5));
                Err(error)
            }
        }
    }

    /// Ends it without a word, as a kill does.
    pub(crate) fn end(self) {
        let Self { engine, runtime, _mounted, .. } = self;
        drop(engine);
        runtime.shutdown_timeout(Duration::from_secs(5));
    }

    /// What a counter has counted.
    pub(crate) fn counted(&self, counter: &str) -> usize {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(counter)?.strip_prefix(' '));
        line.expect("a counter").parse().expect("a number")
    }

    pub(crate) fn submission(&self, sent: &[Sent]) -> Submission {
        let lines = sent.iter().map(|event| {
            let id = event.id.as_ref().map_or(String::new(), |id| format!("\"id\":\"{id}\","));
            format!("{{{id}\"type\":\"reading\",\"data\":{}}}\n", event.data)
        });
        let sensor = &sent[0].sensor;
        let options = ReadOptions {
            sensor,
            received_at: sent[0].received_at,
            fields: FieldNames::default(),
            time_zone: None,
            limits: Limits::default(),
        };
        let body = lines.collect::<String>();
        let batch = event::read(body.as_bytes(), Framing::Ndjson, &options).expect("readable");
        assert_eq!(batch.columns.num_rows(), sent.len());
        Submission { batch, reservation: self.engine.admission().reserve(1).expect("room"), request: None }
    }

    pub(crate) fn submit(&self, submissions: Vec<Submission>) -> Vec<Result<Outcome, AcceptError>> {
        let all = submissions.into_iter().map(|submission| self.engine.submit(submission));
        self.runtime.block_on(async { futures::future::join_all(all).await })
    }

    pub(crate) fn erase(&self, sensor: &str, until: u64) -> Result<(), String> {
        let erasing = Erasing { sensor: sensor.to_owned(), until };
        let erased = self.runtime.block_on(self.engine.erase(&erasing, |told| told.to_vec()));
        erased.map_err(|error| error.to_string())
    }

    /// All rows, of the lake and live.
    pub(crate) fn rows(&self) -> Result<Vec<Found>, String> {
        let (view, live) = self.engine.view().newest.with_rows();
        let mut rows = Vec::new();
        for file in &view.lake.files {
            let path = view.lake.root.join(&file.path);
            let failed = |error: &dyn std::error::Error| format!("{}: {error}", file.path);
            let opened = File::open(&path).map_err(|e| failed(&e))?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(|e| failed(&e))?;
            for batch in reader.build().map_err(|e| failed(&e))? {
                found(&batch.map_err(|e| failed(&e))?, &mut rows);
            }
        }
        for batch in live {
            found(&batch, &mut rows);
        }
        Ok(rows)
    }
}

fn found(batch: &RecordBatch, rows: &mut Vec<Found>) {
    let column = |name: &str| batch.column_by_name(name).expect("a column of the table");
    let text = |name: &str, row: usize| column(name).as_string::<i32>().value(row).to_owned();
    for row in 0..batch.num_rows() {
        let position = column("position").as_primitive::<Int64Type>().value(row) as u64;
        let (sensor, id, data) = (text("sensor", row), text("id", row), text("data", row));
        rows.push(Found { position, sensor, id, data });
    }
}

fn options(folder: &Path, around: &Around) -> Options {
    let clock = around.clock.clone();
    let clock = Clock::new(move || Reading { wall_micros: clock.wall_micros(), passed: clock.passed() });
    Options {
        wal_dir: folder.join("wal"),
        lake_dir: folder.join("lake"),
        free_bytes_min: 0,
        segment_bytes: 16 << 10,
        in_flight_bytes_max: 1 << 20,
        group_bytes_max: 1 << 20,
        payload_bytes_max: 1 << 20,
        live_bytes_max: 8 << 20,
        seal_bytes: 8 << 20,
        fields: FieldRules::default(),
        seal_age_seconds: 3600,
        retention: around.retention,
        clock,
        room_wait_seconds: 1,
        window_keys_max: 100_000,
        group_keys_max: 10_000,
        // Its own age is told by real clocks, and across a restart by those that leap.
        window_seconds: 1000 * 365 * 86_400,
        answers_bytes_max: 1 << 20,
        schema: event::events_schema(),
    }
}
