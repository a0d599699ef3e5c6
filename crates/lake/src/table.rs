//! The Delta table: making it, opening it, reading what it says.

use crate::error::{LakeError, OpenError};
use crate::snapshot::{LakeFile, Snapshot};
use crate::stats::{FileStats, STATS_COLUMNS};
use crate::store::{DurableStore, Staged, create_durable};
use crate::versions;
use arrow::datatypes::{DataType as ArrowType, SchemaRef};
use deltalake_core::kernel::{Action, DataType, MetadataExt, PrimitiveType, StructField, StructType};
use deltalake_core::logstore::LogStoreRef;
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::SaveMode;
use deltalake_core::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use event::{Field, FieldRules, Fields, Kind, REST};
use futures::TryStreamExt;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use uuid::Uuid;

/// The partition column: the day of receipt in UTC, so that late events open no old partition.
pub(crate) const RECEIVED_DATE: &str = "received_date";

/// The property of the table that names the columns with statistics.
const STATS_PROPERTY: &str = "delta.dataSkippingStatsColumns";

/// The versions of the Delta protocol that are written here.
const READER_VERSION: i32 = 1;
const WRITER_VERSION: i32 = 2;

/// The table in `dir`, made when there is none.
pub(crate) async fn open_or_create(dir: &Path, schema: &SchemaRef) -> Result<DeltaTable, OpenError> {
    let store = log_store(dir)?;
    let exists = store.is_delta_table_location().await.map_err(LakeError::from)?;
    if !exists {
        let log = dir.join(versions::LOG);
        create_durable(&log).map_err(|source| OpenError::Folder { action: "create", path: log.clone(), source })?;
        create(store.clone(), schema).await?;
    }
    let table = loaded(dir, store).await?;
    check_columns(dir, &table, schema)?;
    Ok(table)
}

/// The table, unless its protocol is one that this program does not write, which the library would read and write to all the same.
async fn loaded(dir: &Path, store: LogStoreRef) -> Result<DeltaTable, LakeError> {
    let newer = |what| LakeError::Newer { path: dir.to_path_buf(), what };
    let mut table = DeltaTable::new(store);
    table.load().await.map_err(|error| match error {
        DeltaTableError::KernelError(error) if error.to_string().starts_with("Unsupported") => newer(error.to_string()),
        error => error.into(),
    })?;
    let protocol = table.snapshot()?.protocol();
    let (reader, writer) = (protocol.min_reader_version(), protocol.min_writer_version());
    if reader > READER_VERSION || writer > WRITER_VERSION {
        return Err(newer(format!(
            "the table has version {reader} of the Delta protocol for readers, {writer} for writers"
        )));
    }
    Ok(table)
}

/// What lies in `dir`, for who only looks: a collector may write there meanwhile, and what it sealed last is not told.
///
/// # Errors
/// [`LakeError`]: there is no table, or none that can be read.
pub async fn look(dir: &Path) -> Result<Snapshot, LakeError> {
    look_for(dir, Uuid::nil()).await
}

/// The same, with what of this wal is sealed.
///
/// # Errors
/// See [`look`].
pub async fn look_for(dir: &Path, wal: Uuid) -> Result<Snapshot, LakeError> {
    let table = loaded(dir, log_store(dir)?).await?;
    snapshot(&table, dir, wal, &FieldRules::default()).await
}

/// The wals whose events the log of the table in `dir` tells of, as far back as it goes; none when it cannot be read.
pub fn wals(dir: &Path) -> Vec<Uuid> {
    let mut found = Vec::new();
    for commit in std::fs::read_dir(dir.join("_delta_log")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(commit.path()).unwrap_or_default();
        let actions = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        found.extend(actions.filter_map(|action| action["txn"]["appId"].as_str()?.parse::<Uuid>().ok()));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// What is wrong with the path of a folder, if anything: the library would look for the log of the table elsewhere, and find that of another one.
pub fn flaw_of_name(dir: &Path) -> Option<String> {
    let absolute = std::path::absolute(dir).ok()?;
    // It follows links, as far as there are folders.
    let there = |above: &Path| Some(above.canonicalize().ok()?.join(absolute.strip_prefix(above).ok()?));
    let path = absolute.ancestors().find_map(there).unwrap_or_else(|| absolute.clone());
    let Some(name) = path.to_str() else {
        return Some(format!("{} is no UTF-8: choose another name", path.display()));
    };
    let is_escape = |at: usize| name[at + 1..].bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    let sign = name.char_indices().find(|(at, c)| c.is_control() || *c == '\\' || *c == '%' && is_escape(*at))?.1;
    let what = if sign == '%' { "`%` before two hexadecimal digits".to_owned() } else { format!("{sign:?}") };
    Some(format!("the library of the lake reads {what} in the name of a folder as something else: choose another name"))
}

pub(crate) fn log_store(dir: &Path) -> Result<LogStoreRef, LakeError> {
    if let Some(flaw) = flaw_of_name(dir) {
        return Err(LakeError::Name { path: dir.to_path_buf(), flaw });
    }
    versions::check(dir)?;
    let url = deltalake_core::ensure_table_uri(dir.to_string_lossy())?;
    let builder = DeltaTableBuilder::from_url(url.clone())?.with_storage_backend(Arc::new(DurableStore::new()), url);
    Ok(builder.build_storage()?)
}

async fn create(store: LogStoreRef, schema: &SchemaRef) -> Result<(), LakeError> {
    let mut create = CreateBuilder::new()
        .with_log_store(store)
        .with_table_name("events")
        .with_save_mode(SaveMode::ErrorIfExists)
        .with_partition_columns([RECEIVED_DATE])
        .with_configuration([
            (STATS_PROPERTY, Some(STATS_COLUMNS)),
            // A commit every few seconds: what no checkpoint and no reader needs goes after a day.
            ("delta.deletedFileRetentionDuration", Some("interval 1 days")),
            ("delta.logRetentionDuration", Some("interval 1 days")),
        ]);
    for (name, kind, nullable) in columns(schema) {
        create = create.with_column(name, kind, nullable, None);
    }
    create.await?;
    Ok(())
}

fn columns(schema: &SchemaRef) -> Vec<(String, DataType, bool)> {
    let mut columns: Vec<_> =
        schema.fields().iter().map(|f| (f.name().clone(), delta_type(f.data_type()), f.is_nullable())).collect();
    columns.push((RECEIVED_DATE.to_owned(), DataType::Primitive(PrimitiveType::Date), true));
    columns
}

fn delta_type(kind: &ArrowType) -> DataType {
    DataType::Primitive(match kind {
        ArrowType::Int64 => PrimitiveType::Long,
        ArrowType::Int32 => PrimitiveType::Integer,
        ArrowType::Float64 => PrimitiveType::Double,
        ArrowType::Boolean => PrimitiveType::Boolean,
        ArrowType::Timestamp(..) => PrimitiveType::Timestamp,
        ArrowType::Binary => PrimitiveType::Binary,
        ArrowType::Utf8 => PrimitiveType::String,
        other => unreachable!("the table has no column of type {other}"),
    })
}

/// Every column of ours must be there with our type; others may have been added.
fn check_columns(dir: &Path, table: &DeltaTable, schema: &SchemaRef) -> Result<(), OpenError> {
    let found = table.snapshot().map_err(LakeError::from)?.schema();
    for (name, kind, _) in columns(schema) {
        let difference = match found.field(&name) {
            None => format!("column {name} is missing"),
            Some(field) if *field.data_type() != kind => {
                format!("column {name} is {}, not {kind}", field.data_type())
            }
            Some(_) => continue,
        };
        return Err(OpenError::OtherTable { path: dir.to_path_buf(), difference });
    }
    Ok(())
}

/// The name under which the table counts the events that expired or were erased.
pub(crate) const EXPIRED: &str = "catchment.expired";
/// And those that were lost to damage.
pub(crate) const LOST: &str = "catchment.lost";
/// And those that were erased.
pub(crate) const ERASED: &str = "catchment.erased";

/// The last position of `wal` that the table holds, as its transaction identifier says.
pub(crate) async fn sealed_position(table: &DeltaTable, wal: Uuid) -> Result<u64, LakeError> {
    transaction(table, wal).await
}

/// The version of a transaction identifier; 0 when there is none.
pub(crate) async fn transaction(table: &DeltaTable, name: impl ToString + Send) -> Result<u64, LakeError> {
    let version = table.snapshot()?.transaction_version(table.log_store().as_ref(), name.to_string()).await?;
    Ok(version.and_then(|v| u64::try_from(v).ok()).unwrap_or(0))
}

/// A number that nothing else is staged with.
const AGAIN: u64 = u64::MAX;

/// Makes the newest commit durable, whatever became of its syncs: it is written once more, under its name. After a sync of the folder that failed the
/// name may be in memory alone, for good.
pub(crate) fn write_again(dir: &Path, version: u64) -> std::io::Result<()> {
    let commit = dir.join(format!("_delta_log/{version:020}.json"));
    let bytes = match std::fs::read(&commit) {
        // A checkpoint has taken its place, which was written later.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    let again = || {
        let mut staged = Staged::create(&commit, AGAIN)?;
        std::io::Write::write_all(&mut staged, &bytes)?;
        staged.place(|staged, place| std::fs::rename(staged, place)).map(drop)
    };
    match again() {
        // On a full disk there is still much to read: what was not tried to be synced is.
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            std::fs::File::open(dir.join("_delta_log"))?.sync_all()
        }
        done => done,
    }
}

/// The version that the last checkpoint of the table in `dir` is of; 0 when there is none.
pub(crate) fn checkpoint(dir: &Path) -> u64 {
    let text = std::fs::read(dir.join("_delta_log/_last_checkpoint")).unwrap_or_default();
    let last: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    last["version"].as_u64().unwrap_or(0)
}

/// The paths of the files that were taken out of the table, each with when that was.
pub(crate) async fn tombstones(table: &DeltaTable) -> Result<HashMap<String, i64>, LakeError> {
    let log_store = table.log_store();
    let tombstones: Vec<_> = table.snapshot()?.all_tombstones(log_store.as_ref()).try_collect().await?;
    Ok(tombstones.iter().map(|t| (t.path().into_owned(), t.deletion_timestamp().unwrap_or(0))).collect())
}

/// The fields that have a column in the table, in the order in which they got it.
fn fields(table: &DeltaTable, rules: &FieldRules) -> Result<Fields, LakeError> {
    let schema = table.snapshot()?.schema();
    let field = |column: &StructField| {
        let kind = match column.data_type() {
            DataType::Primitive(PrimitiveType::Double) => Kind::Double,
            DataType::Primitive(PrimitiveType::Boolean) => Kind::Boolean,
            DataType::Primitive(PrimitiveType::String) => Kind::Text,
            _ => return None,
        };
        Field::of_column(column.name(), kind)
    };
    Ok(Fields::new(schema.fields().filter_map(field), rules.clone()))
}

/// What makes the table have the columns of these fields; none when it has them.
pub(crate) fn with_fields(table: &DeltaTable, fields: &Fields) -> Result<Option<Action>, LakeError> {
    let state = table.snapshot()?;
    let before = state.schema();
    let columns = fields.columns();
    let new: Vec<StructField> = columns
        .iter()
        .filter(|column| before.field(column.name()).is_none())
        .map(|column| StructField::new(column.name(), delta_type(column.data_type()), true))
        .collect();
    if new.is_empty() {
        return Ok(None);
    }
    let after = StructType::try_new(before.fields().cloned().chain(new)).map_err(DeltaTableError::from)?;
    let metadata = state.metadata().clone().with_schema(&after).map_err(DeltaTableError::from)?;
    let statistics = format!("{STATS_COLUMNS},{REST}");
    let metadata = metadata.add_config_key(STATS_PROPERTY.to_owned(), statistics).map_err(DeltaTableError::from)?;
    Ok(Some(Action::Metadata(metadata)))
}

/// The table as readers see it.
pub(crate) async fn snapshot(
    table: &DeltaTable,
    dir: &Path,
    wal: Uuid,
    rules: &FieldRules,
) -> Result<Snapshot, LakeError> {
    let state = table.snapshot()?;
    let mut files = Vec::new();
    for view in state.log_data().iter() {
        let path = view.path().into_owned();
        let stats = view.stats().ok_or_else(|| "there are none".to_owned()).and_then(|s| FileStats::from_json(&s));
        let stats = stats.map_err(|reason| LakeError::Statistics { path: path.clone(), reason })?;
        let bytes = u64::try_from(view.size()).unwrap_or(0);
        files.push(Arc::new(LakeFile {
            path,
            bytes,
            modified_millis: view.modification_time(),
            stats,
            known: OnceLock::new(),
        }));
    }
    let sealed = sealed_position(table, wal).await?;
    let expired_rows = transaction(table, EXPIRED).await?;
    let erased_rows = transaction(table, ERASED).await?;
    let lost_rows = transaction(table, LOST).await?;
    let fields = Arc::new(fields(table, rules)?);
    Ok(Snapshot {
        expired_rows,
        erased_rows,
        lost_rows,
        fields,
        ..Snapshot::new(state.version(), sealed, dir.to_path_buf(), files)
    })
}
