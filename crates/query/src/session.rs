//! What every question is run with: functions, rules, limits of DataFusion.

use crate::coerce::Fields;
use crate::columns;
use crate::run::Options;
use crate::table::{BATCH_ROWS, LAKE_URL};
use datafusion::error::DataFusionError;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use lake::CheckedStore;
use std::sync::Arc;

/// Memory of queries that remembered footers of the lake's files never take.
const ROWS_BYTES_MIN: u64 = 64 << 20;

/// Of the memory of queries, what remembered footers may take: 32 MiB of 192.
pub(crate) fn footers_bytes_max(memory_bytes_max: u64) -> u64 {
    memory_bytes_max.saturating_sub(ROWS_BYTES_MIN) / 4
}

/// Functions that make much from little, in one step that no limit ends.
const MULTIPLYING: [&str; 8] = [
    "range",
    "generate_series",
    "repeat",
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "string_to_list",
];

pub(crate) fn environment(options: &Options, pool: Arc<dyn MemoryPool>) -> Result<Arc<RuntimeEnv>, DataFusionError> {
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![options.spill_dir.clone()]))
        .with_max_temp_directory_size(options.spill_bytes_max);
    let environment = RuntimeEnvBuilder::new()
        .with_memory_pool(pool)
        .with_disk_manager_builder(disk)
        .with_metadata_cache_limit(footers_bytes_max(options.memory_bytes_max) as usize)
        .build_arc()?;
    let files = CheckedStore::new(&options.lake_dir)?;
    let url = datafusion::execution::object_store::ObjectStoreUrl::parse(LAKE_URL)?;
    environment.register_object_store(url.as_ref(), Arc::new(files));
    Ok(environment)
}

pub(crate) fn base_state(options: &Options, environment: Arc<RuntimeEnv>) -> Result<SessionState, DataFusionError> {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema("catchment", "public")
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(options.threads)
        .with_batch_size(BATCH_ROWS);
    let settings = config.options_mut();
    "postgresql".parse().map(|dialect| settings.sql_parser.dialect = dialect)?;
    // Errors tell their places in the text.
    settings.sql_parser.collect_spans = true;
    settings.execution.time_zone = Some("UTC".into());
    // A recursive query doubles a text a round; no limit of rows or memory sees it.
    settings.execution.enable_recursive_ctes = false;
    settings.execution.parquet.pushdown_filters = true;
    settings.execution.parquet.reorder_filters = true;
    // Columns that a filter has read are kept for the answer, 100 MB for each file by default: beyond any pool.
    settings.execution.parquet.max_predicate_cache_size = Some(2 << 20);
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(environment)
        .with_default_features()
        .with_physical_optimizer_rules(columns::rules())
        .with_table_functions(std::collections::HashMap::new())
        .build();
    datafusion_functions_json::register_all(&mut state)?;
    state.register_expr_planner(Arc::new(Fields))?;
    state.register_function_rewrite(Arc::new(Fields))?;
    for name in MULTIPLYING {
        state.deregister_udf(name)?;
    }
    Ok(state)
}
