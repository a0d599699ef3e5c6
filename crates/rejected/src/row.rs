//! What a row is, on its way in and out.

use bytes::Bytes;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

/// The request that rejected events came with: what it takes to send them again as they were meant.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Who sent it.
    pub sensor: String,
    /// Its id, as the log has it.
    pub request_id: String,
    /// When it came, in microseconds since the epoch.
    pub received_at: i64,
    /// How its events came: plain, or as CloudEvents in one of their modes.
    pub mode: &'static str,
    /// The parameters of its address, as they came.
    pub parameters: Option<String>,
    /// Its content type.
    pub content_type: Option<String>,
    /// The headers `ce-…` of a CloudEvent in binary mode, as a JSON object.
    pub headers: Option<String>,
    /// Whether any of these is not whole.
    pub is_cut: bool,
}

/// A rejected event of a request.
#[derive(Clone, Debug)]
pub struct NewRow {
    /// Its index in the batch.
    pub index: u64,
    /// Why, by name.
    pub code: &'static str,
    /// The field at fault.
    pub pointer: Option<String>,
    /// Why, as a sentence.
    pub reason: String,
    /// Its bytes as they came.
    pub data: Bytes,
}

/// What a row takes beside its texts: itself, its entries in two trees, their room that is not used.
const ROW_BYTES: usize = 160;

impl Origin {
    /// What it takes of the table.
    pub(crate) fn bytes(&self) -> i64 {
        let texts = [&self.sensor, &self.request_id].map(String::len).iter().sum::<usize>();
        let optional = [&self.parameters, &self.content_type, &self.headers];
        let optional = optional.into_iter().flatten().map(String::len).sum::<usize>();
        (ROW_BYTES + self.mode.len() + texts + optional) as i64
    }
}

impl NewRow {
    /// What it takes of the table when its data is cut to `data_bytes_max`, beside its request.
    pub(crate) fn bytes(&self, sensor: &str, data_bytes_max: usize) -> i64 {
        let texts = self.reason.len() + sensor.len() + self.pointer.as_ref().map_or(0, String::len);
        (ROW_BYTES + self.code.len() + texts + self.cut(data_bytes_max).len()) as i64
    }

    /// As many of its bytes as may be kept; a text is cut between characters.
    pub(crate) fn cut(&self, data_bytes_max: usize) -> &[u8] {
        let data = &self.data[..];
        if data.len() <= data_bytes_max {
            return data;
        }
        match std::str::from_utf8(data) {
            Ok(text) => &data[..text.floor_char_boundary(data_bytes_max)],
            Err(_) => &data[..data_bytes_max],
        }
    }
}

/// A rejected event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place in the order of rejection: grows, never used twice.
    pub position: i64,
    /// When its request came, in microseconds since the epoch.
    pub received_at: i64,
    /// Who sent it.
    pub sensor: String,
    /// The id of its request.
    pub request_id: String,
    /// Its index in the batch.
    pub index: i64,
    /// Why, by name.
    pub code: String,
    /// The field at fault.
    pub pointer: Option<String>,
    /// Why, as a sentence.
    pub reason: String,
    /// How its request brought events: plain, or as CloudEvents in one of their modes.
    pub mode: String,
    /// The parameters of the address of its request.
    pub parameters: Option<String>,
    /// The content type of its request.
    pub content_type: Option<String>,
    /// The headers `ce-…` of a CloudEvent in binary mode, as a JSON object.
    pub headers: Option<String>,
    /// Its bytes, as many as are kept.
    pub data: Vec<u8>,
    /// How many bytes came.
    pub bytes: i64,
    /// Whether what is kept of its request is not whole.
    pub request_is_cut: bool,
}

impl Row {
    /// Whether more came than is kept: of its bytes, or of what its request said.
    pub fn is_cut(&self) -> bool {
        self.request_is_cut || self.bytes > self.data.len() as i64
    }

    /// Memory of it.
    pub fn memory_bytes(&self) -> usize {
        let optional = [&self.pointer, &self.parameters, &self.content_type, &self.headers];
        size_of::<Self>()
            + [&self.sensor, &self.request_id, &self.code, &self.reason, &self.mode]
                .map(String::len)
                .iter()
                .sum::<usize>()
            + optional.into_iter().flatten().map(String::len).sum::<usize>()
            + self.data.len()
    }

    pub(crate) fn of(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            position: row.try_get("position")?,
            received_at: row.try_get("received_at")?,
            sensor: row.try_get("sensor")?,
            request_id: row.try_get("request_id")?,
            index: row.try_get("batch_index")?,
            code: row.try_get("code")?,
            pointer: row.try_get("pointer")?,
            reason: row.try_get("reason")?,
            mode: row.try_get("mode")?,
            parameters: row.try_get("parameters")?,
            content_type: row.try_get("content_type")?,
            headers: row.try_get("headers")?,
            data: row.try_get("data")?,
            bytes: row.try_get("data_bytes")?,
            request_is_cut: row.try_get("is_cut")?,
        })
    }
}

/// Which rows come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The last one rejected.
    #[default]
    Newest,
    /// The first one rejected.
    Oldest,
}

/// Which rows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this sensor.
    pub sensor: Option<String>,
    /// With this code.
    pub code: Option<String>,
    /// Received at this time or later, in microseconds since the epoch.
    pub since: Option<i64>,
    /// Received before this time.
    pub until: Option<i64>,
    /// Beyond this position, in the order asked for.
    pub beyond: Option<i64>,
    /// Which come first.
    pub order: Order,
}

impl Filter {
    pub(crate) fn select(&self, limit: usize) -> QueryBuilder<Sqlite> {
        let mut sql = QueryBuilder::new("SELECT * FROM rejected JOIN requests ON last_position = request WHERE true");
        if let Some(sensor) = &self.sensor {
            sql.push(" AND rejected.sensor = ").push_bind(sensor.clone());
        }
        if let Some(code) = &self.code {
            sql.push(" AND code = ").push_bind(code.clone());
        }
        if let Some(since) = self.since {
            sql.push(" AND received_at >= ").push_bind(since);
        }
        if let Some(until) = self.until {
            sql.push(" AND received_at < ").push_bind(until);
        }
        let (beyond, order) = match self.order {
            Order::Newest => (" AND position < ", " ORDER BY position DESC LIMIT "),
            Order::Oldest => (" AND position > ", " ORDER BY position LIMIT "),
        };
        if let Some(position) = self.beyond {
            sql.push(beyond).push_bind(position);
        }
        sql.push(order).push_bind(limit as i64);
        sql
    }
}
