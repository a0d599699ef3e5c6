//! The order of rows in a data file: by sensor, then time, then position, so that what is asked together lies together.

use arrow::array::{Array, AsArray, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;

/// The columns that rows are ordered by. Positions are used once, so no two rows are equal.
pub(crate) const ORDER: [&str; 3] = ["sensor", "time", "position"];

/// Most rows of a batch that is made here.
const BATCH_ROWS: usize = 8192;
/// And most bytes, however large its events are: the longest row times the number of rows stays below.
const BATCH_BYTES: usize = 8 << 20;

/// What the rows of a batch are ordered by.
struct Keys {
    sensor: StringArray,
    time: TimestampMicrosecondArray,
    position: Int64Array,
}

impl Keys {
    fn of(batch: &RecordBatch) -> Self {
        let [sensor, time, position] = ORDER.map(|name| batch.column_by_name(name).expect("a column of the table"));
        Self {
            sensor: sensor.as_string().clone(),
            time: time.as_primitive().clone(),
            position: position.as_primitive().clone(),
        }
    }

    fn rows(&self) -> usize {
        self.position.len()
    }

    fn row(&self, row: usize) -> (&str, i64, i64) {
        (self.sensor.value(row), self.time.value(row), self.position.value(row))
    }
}

/// A row of many batches, and what it is ordered by: numbers beside one another, as a seal compares each of its rows twenty times.
struct Row {
    /// Of the sensor, among those in order.
    sensor: u32,
    time: i64,
    position: i64,
    batch: usize,
    row: u32,
}

/// The rows of `batches` in order.
fn in_order(batches: &[RecordBatch]) -> Vec<Row> {
    let keys: Vec<Keys> = batches.iter().map(Keys::of).collect();
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let mut rows: Vec<Row> = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for (batch, keys) in keys.iter().enumerate() {
        let mut before: Option<(&str, u32)> = None;
        for row in 0..keys.rows() {
            let (name, time, position) = keys.row(row);
            let sensor = match before {
                Some((before, sensor)) if before == name => sensor,
                _ => {
                    let next = numbers.len() as u32;
                    *numbers.entry(name).or_insert(next)
                }
            };
            before = Some((name, sensor));
            rows.push(Row { sensor, time, position, batch, row: row as u32 });
        }
    }
    let mut names: Vec<(&str, u32)> = numbers.into_iter().collect();
    names.sort_unstable();
    let mut places = vec![0; names.len()];
    for (place, (_, number)) in names.into_iter().enumerate() {
        places[number as usize] = place as u32;
    }
    for row in &mut rows {
        row.sensor = places[row.sensor as usize];
    }
    // Stable because rows come in runs, each of one sensor in order of time, which it makes use of.
    rows.sort_by_key(|row| (row.sensor, row.time, row.position));
    rows
}

/// The rows of `batches` in order, a batch at a time.
pub(crate) fn sorted(batches: &[RecordBatch]) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> {
    let order = in_order(batches);
    let step = rows_at_once(batches);
    let starts = (0..order.len()).step_by(step);
    starts.map(move |start| {
        let rows = &order[start..order.len().min(start + step)];
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        let rows: Vec<(usize, usize)> = rows.iter().map(|row| (row.batch, row.row as usize)).collect();
        interleave_record_batch(&batches, &rows)
    })
}

/// How many rows may be put together: fewer when there are large ones.
fn rows_at_once(batches: &[RecordBatch]) -> usize {
    let widest = batches.iter().flat_map(row_bytes).max().unwrap_or(1);
    (BATCH_BYTES / widest).clamp(1, BATCH_ROWS)
}

/// What a row takes beside its texts, about.
const FIXED_BYTES: usize = 48;

/// The bytes of each row.
fn row_bytes(batch: &RecordBatch) -> Vec<usize> {
    let mut rows = vec![FIXED_BYTES; batch.num_rows()];
    for column in batch.columns() {
        let offsets = match column.data_type() {
            DataType::Utf8 => column.as_string::<i32>().value_offsets(),
            DataType::Binary => column.as_binary::<i32>().value_offsets(),
            _ => continue,
        };
        for (row, pair) in rows.iter_mut().zip(offsets.windows(2)) {
            *row += (pair[1] - pair[0]) as usize;
        }
    }
    rows
}

/// Rows of a batch that follow one another.
pub(crate) struct Part {
    pub(crate) rows: RecordBatch,
    pub(crate) bytes: usize,
    /// Bytes of the longest row.
    pub(crate) widest: usize,
}

/// The batch in parts of at most so many bytes, each of one row at least. A row takes `fields_bytes` more in columns of fields.
pub(crate) fn parts(batch: &RecordBatch, bytes_max: usize, fields_bytes: usize) -> Vec<Part> {
    let (of_row, mut parts, mut first) = (row_bytes(batch), Vec::new(), 0);
    while first < of_row.len() {
        let (mut bytes, mut count) = (of_row[first], 1);
        let fits = |bytes: usize, count: usize| bytes + fields_bytes * count <= bytes_max;
        while let Some(more) = of_row.get(first + count).filter(|more| fits(bytes + **more, count + 1)) {
            (bytes, count) = (bytes + more, count + 1);
        }
        let widest = of_row[first..first + count].iter().copied().max().unwrap_or(0);
        parts.push(Part { rows: batch.slice(first, count), bytes, widest });
        first += count;
    }
    parts
}

/// Rows that come in order, a batch at a time.
pub(crate) type Run<'a, E> = Box<dyn Iterator<Item = Result<RecordBatch, E>> + 'a>;

/// One run of a merge: where it stands.
struct Cursor<'a, E> {
    rest: Run<'a, E>,
    keys: Keys,
    at: usize,
    /// Which of the held batches is its.
    held: usize,
}

/// Puts runs together into one, in order. Holds the batches that each run stands in, and those that the next batch takes rows of.
pub(crate) struct Merged<'a, E> {
    cursors: Vec<Cursor<'a, E>>,
    held: Vec<RecordBatch>,
    ready: VecDeque<RecordBatch>,
}

impl<'a, E: From<ArrowError>> Merged<'a, E> {
    /// The runs have the same columns.
    pub(crate) fn new(runs: Vec<Run<'a, E>>) -> Result<Self, E> {
        let mut merged = Self { cursors: Vec::new(), held: Vec::new(), ready: VecDeque::new() };
        for mut rest in runs {
            if let Some(batch) = next_batch(&mut rest)? {
                merged.cursors.push(Cursor { rest, keys: Keys::of(&batch), at: 0, held: merged.held.len() });
                merged.held.push(batch);
            }
        }
        Ok(merged)
    }

    /// The next rows; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>, E> {
        if let Some(batch) = self.ready.pop_front() {
            return Ok(Some(batch));
        }
        let mut rows: Vec<(usize, usize)> = Vec::with_capacity(BATCH_ROWS);
        let mut used = self.cursors.len();
        while rows.len() < BATCH_ROWS && used < 2 * self.cursors.len() + 2 {
            let Some(first) = self.first(None) else { break };
            let bound = self.first(Some(first));
            if self.take(first, bound, &mut rows)? {
                used += 1;
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let held: Vec<&RecordBatch> = self.held.iter().collect();
        for part in rows.chunks(rows_at_once(&self.held)) {
            self.ready.push_back(interleave_record_batch(&held, part)?);
        }
        self.let_go();
        Ok(self.ready.pop_front())
    }

    /// The run whose next row is the first of all, but for one run.
    fn first(&self, but: Option<usize>) -> Option<usize> {
        let runs = (0..self.cursors.len()).filter(|n| Some(*n) != but);
        runs.min_by(|a, b| self.cursors[*a].key().cmp(&self.cursors[*b].key()))
    }

    /// Takes the rows of run `first` that come before the next one of run `bound`, as far as its batch goes. Whether the batch ended.
    fn take(&mut self, first: usize, bound: Option<usize>, rows: &mut Vec<(usize, usize)>) -> Result<bool, E> {
        let (at, held) = (self.cursors[first].at, self.cursors[first].held);
        let bound = bound.map(|n| self.cursors[n].key());
        let keys = &self.cursors[first].keys;
        let end = keys.rows().min(at + BATCH_ROWS - rows.len());
        let end = bound.map_or(end, |bound| end_before(keys, at..end, bound));
        rows.extend((at..end).map(|row| (held, row)));
        let cursor = &mut self.cursors[first];
        cursor.at = end;
        if end < cursor.keys.rows() {
            return Ok(false);
        }
        match next_batch(&mut cursor.rest)? {
            Some(batch) => {
                (cursor.keys, cursor.at, cursor.held) = (Keys::of(&batch), 0, self.held.len());
                self.held.push(batch);
            }
            None => {
                self.cursors.swap_remove(first);
            }
        }
        Ok(true)
    }

    /// Holds only the batches that the runs stand in.
    fn let_go(&mut self) {
        let held = self.cursors.iter_mut().enumerate().map(|(n, cursor)| {
            let batch = self.held[cursor.held].clone();
            cursor.held = n;
            batch
        });
        self.held = held.collect();
    }
}

impl<E> Cursor<'_, E> {
    fn key(&self) -> (&str, i64, i64) {
        self.keys.row(self.at)
    }
}

/// Where the rows end that come before `bound`: looked for in steps that double, as there are a few of them or nearly all.
fn end_before(keys: &Keys, among: Range<usize>, bound: (&str, i64, i64)) -> usize {
    let is_before = |row: usize| keys.row(row) <= bound;
    let (mut before, mut step) = (among.start, 1);
    while before + step < among.end && is_before(before + step) {
        before += step;
        step *= 2;
    }
    // The row at `before` comes before the bound, or is the first.
    let (mut low, mut high) = (before, among.end.min(before + step));
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// The next batch that has rows.
fn next_batch<E>(run: &mut Run<'_, E>) -> Result<Option<RecordBatch>, E> {
    run.find(|batch| batch.as_ref().map_or(true, |batch| batch.num_rows() > 0)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::ArrayRef;
    use proptest::prelude::*;
    use std::sync::Arc;

    type Event = (String, i64, i64);

    fn batch(events: &[Event]) -> RecordBatch {
        let texts = events.iter().map(|e| format!("{:0>1$}", e.2, (e.2 % 40) as usize));
        RecordBatch::try_from_iter([
            ("position", Arc::new(Int64Array::from_iter_values(events.iter().map(|e| e.2))) as ArrayRef),
            ("sensor", Arc::new(StringArray::from_iter_values(events.iter().map(|e| &e.0)))),
            ("time", Arc::new(TimestampMicrosecondArray::from_iter_values(events.iter().map(|e| e.1)))),
            ("data", Arc::new(StringArray::from_iter_values(texts))),
        ])
        .expect("the columns fit")
    }

    fn events(batches: impl IntoIterator<Item = RecordBatch>) -> Vec<Event> {
        let of = |batch: RecordBatch| {
            let (position, sensor) =
                (batch.column(0).as_primitive::<arrow::datatypes::Int64Type>(), batch.column(1).as_string::<i32>());
            let time = batch.column(2).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
            let row = |n: usize| (sensor.value(n).to_owned(), time.value(n), position.value(n));
            (0..batch.num_rows()).map(row).collect::<Vec<_>>()
        };
        batches.into_iter().flat_map(of).collect()
    }

    proptest! {
        #[test]
        fn sorted_runs_that_are_merged_are_all_rows_in_order(
            runs in prop::collection::vec(prop::collection::vec(("[a-c]{0,2}", -3i64..3), 0..40), 1..6), rows in 1usize..9,
        ) {
            let mut position = 0;
            let mut all: Vec<Event> = Vec::new();
            let mut in_order: Vec<Run<'_, ArrowError>> = Vec::new();
            for run in runs {
                let numbered: Vec<Event> = run.into_iter().map(|(s, t)| { position += 1; (s, t, position) }).collect();
                let parts: Vec<RecordBatch> = numbered.chunks(rows).map(batch).collect();
                all.extend(numbered);
                if parts.is_empty() {
                    continue;
                }
                let sorted: Vec<RecordBatch> = sorted(&parts).collect::<Result<_, _>>().expect("rows");
                let whole = events(sorted);
                prop_assert!(whole.is_sorted());
                in_order.push(Box::new(whole.chunks(rows).map(batch).map(Ok).collect::<Vec<_>>().into_iter()));
            }
            let mut merged = Merged::new(in_order).expect("rows");
            let mut found = Vec::new();
            while let Some(batch) = merged.next().expect("rows") {
                found.extend(events([batch]));
            }
            all.sort();
            prop_assert_eq!(found, all);
        }
    }
}
