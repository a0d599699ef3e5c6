//! The View as the table `events`.
//!
//! Texts are views (`Utf8View`): short ones are compared and grouped without a look elsewhere. Files are read by DataFusion's
//! Parquet reader, live rows by `live`.

use crate::columns::Whole;
use crate::ids;
use crate::live::LiveExec;
use crate::locked;
use crate::metrics::QueryMetrics;
use crate::prune::kept;
use arrow::array::Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::{ParquetOptions, TableParquetOptions};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, DataFusionError, Result, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfigBuilder, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use futures::{StreamExt, stream};
use lake::{CheckedFile, LakeFile, LiveChunk, RowGroup, View};
use object_store::ObjectStore;
use parquet::file::metadata::PageIndexPolicy;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

/// Where the lake's files are found.
pub(crate) const LAKE_URL: &str = "lake://events";

/// The columns that a statement knows.
static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let events = event::events_schema();
    let field = |f: &Field| match f.data_type() {
        DataType::Utf8 => f.clone().with_data_type(DataType::Utf8View),
        DataType::Binary => f.clone().with_data_type(DataType::BinaryView),
        _ => f.clone(),
    };
    Arc::new(Schema::new(events.fields().iter().map(|f| field(f)).collect::<Vec<_>>()))
});

/// Bytes at the end of a file that are read first: its footer is mostly in them.
const FOOTER_BYTES: usize = 256 * 1024;

/// Files whose footers are read at once.
const FOOTERS_AT_ONCE: usize = 4;

/// Rows of a batch, as every operator hands them on.
pub(crate) const BATCH_ROWS: usize = 8192;
/// The data that a batch may have: with larger events it has fewer rows.
const BATCH_BYTES: u64 = 1 << 20;

/// By file and ids, the row groups that may have one of them.
type WithIds = HashMap<(String, Arc<[String]>), ParquetAccessPlan>;

/// One View, as DataFusion asks for it.
#[derive(Debug)]
pub(crate) struct Events {
    view: Arc<View>,
    metrics: QueryMetrics,
    /// The columns of the lake's files: those that a statement knows, and behind them those of fields.
    file_schema: SchemaRef,
    /// What was looked for in this question.
    with_ids: Mutex<WithIds>,
    /// Columns of smaller numbers are asked for, counted as [`event::REST`] counts them.
    pub(crate) asked: AtomicUsize,
    /// Rows that a batch may have, as far as the scans planned so far tell.
    pub(crate) batch_rows: AtomicUsize,
}

impl Events {
    pub(crate) fn new(view: Arc<View>, metrics: QueryMetrics) -> Self {
        let file_schema = Arc::new(view.lake.fields.schema(&SCHEMA));
        Self {
            view,
            metrics,
            file_schema,
            with_ids: Mutex::default(),
            asked: AtomicUsize::new(0),
            batch_rows: AtomicUsize::new(BATCH_ROWS),
        }
    }

    fn lake(
        &self,
        files: &[Part],
        predicate: Option<Arc<dyn PhysicalExpr>>,
        scan: Scan<'_>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut options = TableParquetOptions { global: scan.parquet.clone(), ..TableParquetOptions::default() };
        // Not again, and not all of them.
        options.global.bloom_filter_on_read = !files.iter().all(|part| part.ids_known);
        let source = source(self.file_schema.clone(), options, scan.reader, predicate);
        let mut groups: Vec<Vec<PartitionedFile>> = vec![Vec::new(); scan.partitions.min(files.len()).max(1)];
        let count = groups.len();
        // Newest first, so that a question for the last events finds them in the first files.
        for (n, Part { file, row_groups, whole, rows, .. }) in files.iter().rev().enumerate() {
            let statistics =
                Statistics { num_rows: Precision::Exact(*rows as usize), ..statistics(file, &self.file_schema) };
            let known = PartitionedFile::new(file.path.clone(), file.bytes).with_statistics(Arc::new(statistics));
            let known = known.with_extension(Whole(*whole));
            groups[n % count].push(match row_groups {
                Some(some) => known.with_extension(some.clone()),
                None => known,
            });
        }
        let rows: u64 = files.iter().map(|part| part.rows).sum();
        let mut total = Statistics::new_unknown(&self.file_schema);
        total.num_rows = Precision::Exact(rows as usize);
        let url = ObjectStoreUrl::parse(LAKE_URL)?;
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
            .with_statistics(total)
            .with_projection_indices(Some(scan.projection.cloned().unwrap_or_else(all_columns)))?
            .with_limit(scan.limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// Of the files, those that may have an event with one of these ids, and where in them.
    async fn with_ids(&self, files: Vec<Arc<LakeFile>>, ids: Vec<String>, lake: &LakeStore<'_>) -> Vec<Part> {
        let ids: Arc<[String]> = ids.into();
        let may_have = |file: Arc<LakeFile>| {
            let ids = ids.clone();
            async move {
                match self.row_groups_with(&file, ids, lake).await {
                    Ok(found) => Part { row_groups: Some(found), ids_known: true, ..Part::whole(file) },
                    Err(error) => {
                        tracing::debug!(file = file.path, %error, "the filters of ids cannot be read: all of the file is");
                        Part::whole(file)
                    }
                }
            }
        };
        let parts: Vec<Part> = stream::iter(files).map(may_have).buffered(FOOTERS_AT_ONCE).collect().await;
        let is_read =
            |part: &Part| part.row_groups.as_ref().is_none_or(|groups| !groups.row_group_indexes().is_empty());
        parts.into_iter().filter(is_read).collect()
    }

    /// Looked for once in a question, which is planned again when its rows are large.
    async fn row_groups_with(
        &self,
        file: &LakeFile,
        ids: Arc<[String]>,
        lake: &LakeStore<'_>,
    ) -> Result<ParquetAccessPlan> {
        let looked_for = (file.path.clone(), ids.clone());
        if let Some(known) = locked(&self.with_ids).get(&looked_for) {
            return Ok(known.clone());
        }
        let known = PartitionedFile::new(file.path.clone(), file.bytes);
        let footer = DFParquetMetadata::new(lake.files.as_ref(), &known.object_meta)
            .with_metadata_size_hint(Some(FOOTER_BYTES))
            .with_file_metadata_cache(Some(lake.footers.clone()))
            .with_page_index_policy(Some(PageIndexPolicy::Skip))
            .fetch_metadata()
            .await?;
        let path = self.view.lake.root.join(&file.path);
        let look = move || CheckedFile::open(&path).and_then(|file| ids::may_have(&file, &footer, &ids));
        let found =
            tokio::task::spawn_blocking(look).await.map_err(|error| DataFusionError::External(error.into()))??;
        let access = |may: bool| if may { RowGroupAccess::Scan } else { RowGroupAccess::Skip };
        let found = ParquetAccessPlan::new(found.into_iter().map(access).collect());
        locked(&self.with_ids).insert(looked_for, found.clone());
        Ok(found)
    }

    fn live(&self, scan: Scan<'_>) -> Result<Arc<dyn ExecutionPlan>> {
        let all = all_columns();
        let columns = scan.projection.unwrap_or(&all);
        Ok(Arc::new(LiveExec::try_new(&self.view, &SCHEMA, columns, scan.partitions)?))
    }
}

/// What reads the lake's files: the rows for which `predicate` may be true.
pub(crate) fn source(
    schema: impl Into<TableSchema>,
    options: TableParquetOptions,
    reader: &Arc<dyn ParquetFileReaderFactory>,
    predicate: Option<Arc<dyn PhysicalExpr>>,
) -> ParquetSource {
    let source = ParquetSource::new(schema)
        .with_table_parquet_options(options)
        .with_metadata_size_hint(FOOTER_BYTES)
        .with_parquet_file_reader_factory(reader.clone());
    match predicate {
        Some(predicate) => source.with_predicate(predicate),
        None => source,
    }
}

/// What is read of a file.
struct Part {
    file: Arc<LakeFile>,
    /// All, when nothing is told.
    row_groups: Option<ParquetAccessPlan>,
    /// As [`lake::FileStats::whole`], of these row groups.
    whole: i32,
    rows: u64,
    /// The filters of ids were looked at.
    ids_known: bool,
}

impl Part {
    /// Nothing of the file yet.
    fn none_of(&self, row_groups: usize) -> Self {
        let none = ParquetAccessPlan::new_none(row_groups);
        Self {
            file: self.file.clone(),
            row_groups: Some(none),
            whole: event::WHOLE,
            rows: 0,
            ids_known: self.ids_known,
        }
    }

    fn add(&mut self, number: usize, group: &RowGroup) {
        if let Some(row_groups) = &mut self.row_groups {
            row_groups.scan(number);
        }
        self.whole = self.whole.min(group.whole);
        self.rows += group.rows;
    }

    /// The row groups whose texts need not be read for columns of smaller numbers than `asked`, and the others: one odd value in a file
    /// leaves the columns of most of it.
    fn split(self, root: &Path, asked: i64) -> (Option<Self>, Option<Self>) {
        if i64::from(self.whole) >= asked {
            return (Some(self), None);
        }
        let groups = self.file.row_groups(root);
        let (mut whole, mut odd) = (self.none_of(groups.len()), self.none_of(groups.len()));
        let is_read = |n: usize| self.row_groups.as_ref().is_none_or(|read| read.should_scan(n));
        for (n, group) in groups.iter().enumerate().filter(|(n, _)| is_read(*n)) {
            let side = if i64::from(group.whole) >= asked { &mut whole } else { &mut odd };
            side.add(n, group);
        }
        match (whole.rows, odd.rows) {
            (0, _) => (None, Some(self)),
            (_, 0) => (Some(whole), None),
            _ => (Some(whole), Some(odd)),
        }
    }

    fn whole(file: Arc<LakeFile>) -> Self {
        let (whole, rows) = (file.stats.whole, file.stats.rows);
        Self { file, row_groups: None, whole, rows, ids_known: false }
    }
}

/// The lake's files as DataFusion reads them.
struct LakeStore<'a> {
    files: &'a Arc<dyn ObjectStore>,
    footers: &'a Arc<FileMetadataCache>,
}

/// What one scan was asked for.
#[derive(Clone, Copy)]
struct Scan<'a> {
    projection: Option<&'a Vec<usize>>,
    limit: Option<usize>,
    partitions: usize,
    parquet: &'a ParquetOptions,
    /// Remembers footers.
    reader: &'a Arc<dyn ParquetFileReaderFactory>,
}

impl Scan<'_> {
    /// Whether one of these columns is asked for.
    fn reads(&self, names: &[&str]) -> bool {
        let is_one = |at: &usize| names.contains(&SCHEMA.field(*at).name().as_str());
        self.projection.is_none_or(|columns| columns.iter().any(is_one))
    }
}

#[async_trait]
impl TableProvider for Events {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = DFSchema::try_from(SCHEMA.clone())?;
        let predicate =
            conjunction(filters.to_vec()).map(|all| state.create_physical_expr(all, &schema)).transpose()?;
        let environment = state.runtime_env();
        let store = environment.object_store(ObjectStoreUrl::parse(LAKE_URL)?)?;
        let footers = environment.cache_manager.get_file_metadata_cache();
        let files = kept(&self.view.lake.files, predicate.as_ref(), &SCHEMA);
        let lake = LakeStore { files: &store, footers: &footers };
        let files: Vec<Part> = match predicate.as_ref().and_then(ids::asked) {
            Some(ids) => self.with_ids(files, ids, &lake).await,
            None => files.into_iter().map(Part::whole).collect(),
        };
        self.metrics.files_read.inc_by(files.len() as u64);
        self.metrics.files_skipped.inc_by((self.view.lake.files.len() - files.len()) as u64);
        let reader: Arc<dyn ParquetFileReaderFactory> =
            Arc::new(CachedParquetFileReaderFactory::new(store.clone(), footers.clone()));
        let scan = Scan {
            projection,
            limit,
            partitions: state.config().target_partitions(),
            parquet: &state.config_options().execution.parquet,
            reader: &reader,
        };
        let mut parts = Vec::with_capacity(3);
        if scan.reads(&["attributes", "data", "data_binary"]) {
            let sealed = files.iter().map(|part| part.file.data_bytes(&self.view.lake.root));
            let live = self.view.live.iter().filter_map(live_data_bytes);
            let widest = sealed.chain(live).max().unwrap_or(0).max(1);
            let rows = (BATCH_BYTES / widest).clamp(1, BATCH_ROWS as u64);
            self.batch_rows.fetch_min(rows as usize, Ordering::Relaxed);
        }
        // What need not be read for the fields that are asked for, apart from the rest.
        let asked = if scan.reads(&["data"]) { self.asked.load(Ordering::Relaxed) as i64 } else { 0 };
        let (mut from_columns, mut from_texts) = (Vec::new(), Vec::new());
        for part in files {
            let (whole, odd) = part.split(&self.view.lake.root, asked);
            from_columns.extend(whole);
            from_texts.extend(odd);
        }
        for files in [from_columns, from_texts] {
            if !files.is_empty() {
                parts.push(self.lake(&files, predicate.clone(), scan)?);
            }
        }
        if !self.view.live.is_empty() || parts.is_empty() {
            parts.push(self.live(scan)?);
        }
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => UnionExec::try_new(parts),
        }
    }
}

/// The data and attributes of a live event on the average; none when the chunk is no longer there.
fn live_data_bytes(chunk: &LiveChunk) -> Option<u64> {
    let rows = chunk.rows.upgrade()?;
    let large = ["attributes", "data", "data_binary"].iter().filter_map(|name| rows.column_by_name(name));
    let bytes: usize = large.map(|column| column.get_buffer_memory_size()).sum();
    Some((bytes / rows.num_rows().max(1)) as u64)
}

fn all_columns() -> Vec<usize> {
    (0..SCHEMA.fields().len()).collect()
}

/// What is known of a file, in the order of the columns. Bounds are not exact: times are rounded outwards.
fn statistics(file: &LakeFile, schema: &Schema) -> Statistics {
    let stats = &file.stats;
    let bounds = |min: Option<ScalarValue>, max: Option<ScalarValue>| ColumnStatistics {
        null_count: Precision::Exact(0),
        min_value: min.map_or(Precision::Absent, Precision::Inexact),
        max_value: max.map_or(Precision::Absent, Precision::Inexact),
        ..ColumnStatistics::new_unknown()
    };
    let time = |micros: Option<i64>| micros.map(|m| ScalarValue::TimestampMicrosecond(Some(m), Some("UTC".into())));
    let mut known = Statistics::new_unknown(schema);
    known.num_rows = Precision::Exact(stats.rows as usize);
    for (field, column) in SCHEMA.fields().iter().zip(&mut known.column_statistics) {
        let range = match (field.name().as_str(), field.data_type()) {
            ("position", _) => (stats.position.min.map(ScalarValue::from), stats.position.max.map(ScalarValue::from)),
            ("time", DataType::Timestamp(TimeUnit::Microsecond, _)) => (time(stats.time.min), time(stats.time.max)),
            ("received_at", _) => (time(stats.received_at.min), time(stats.received_at.max)),
            _ => continue,
        };
        *column = bounds(range.0, range.1);
    }
    known
}
