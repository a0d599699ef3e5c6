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

/// A rejected event as it is kept; of columns that were not asked for it has the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Whether more came than is kept: of its bytes, or of what its request said.
    pub is_cut: bool,
}

impl Row {
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

    pub(crate) fn of(row: &SqliteRow, columns: &[Column]) -> Result<Self, sqlx::Error> {
        let mut it = Self::default();
        for (at, column) in columns.iter().enumerate() {
            match column {
                Column::Position => it.position = row.try_get(at)?,
                Column::ReceivedAt => it.received_at = row.try_get(at)?,
                Column::Sensor => it.sensor = row.try_get(at)?,
                Column::RequestId => it.request_id = row.try_get(at)?,
                Column::Index => it.index = row.try_get(at)?,
                Column::Code => it.code = row.try_get(at)?,
                Column::Pointer => it.pointer = row.try_get(at)?,
                Column::Reason => it.reason = row.try_get(at)?,
                Column::Mode => it.mode = row.try_get(at)?,
                Column::Parameters => it.parameters = row.try_get(at)?,
                Column::ContentType => it.content_type = row.try_get(at)?,
                Column::Headers => it.headers = row.try_get(at)?,
                Column::Data => it.data = row.try_get(at)?,
                Column::Bytes => it.bytes = row.try_get(at)?,
                Column::IsCut => it.is_cut = row.try_get(at)?,
            }
        }
        Ok(it)
    }
}

/// A part of a row that is read, by the name of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// [`Row::position`].
    Position,
    /// [`Row::received_at`].
    ReceivedAt,
    /// [`Row::sensor`].
    Sensor,
    /// [`Row::request_id`].
    RequestId,
    /// [`Row::index`].
    Index,
    /// [`Row::code`].
    Code,
    /// [`Row::pointer`].
    Pointer,
    /// [`Row::reason`].
    Reason,
    /// [`Row::mode`].
    Mode,
    /// [`Row::parameters`].
    Parameters,
    /// [`Row::content_type`].
    ContentType,
    /// [`Row::headers`].
    Headers,
    /// [`Row::data`].
    Data,
    /// [`Row::bytes`].
    Bytes,
    /// [`Row::is_cut`].
    IsCut,
}

impl Column {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Position,
        Self::ReceivedAt,
        Self::Sensor,
        Self::RequestId,
        Self::Index,
        Self::Code,
        Self::Pointer,
        Self::Reason,
        Self::Mode,
        Self::Parameters,
        Self::ContentType,
        Self::Headers,
        Self::Data,
        Self::Bytes,
        Self::IsCut,
    ];

    fn sql(self) -> &'static str {
        match self {
            Self::Position => "position",
            Self::ReceivedAt => "received_at",
            Self::Sensor => "sensor",
            Self::RequestId => "request_id",
            Self::Index => "batch_index",
            Self::Code => "code",
            Self::Pointer => "pointer",
            Self::Reason => "reason",
            Self::Mode => "mode",
            Self::Parameters => "parameters",
            Self::ContentType => "content_type",
            Self::Headers => "headers",
            Self::Data => "data",
            Self::Bytes => "data_bytes",
            // The length is known without the bytes.
            Self::IsCut => "is_cut OR data_bytes > length(data)",
        }
    }

    /// Whether it is kept once for the rows of a request.
    fn is_of_request(self) -> bool {
        use Column::{ContentType, Headers, IsCut, Mode, Parameters, ReceivedAt, RequestId};
        matches!(self, ReceivedAt | RequestId | Mode | Parameters | ContentType | Headers | IsCut)
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
    /// At this position or before it.
    pub last: Option<i64>,
    /// Which come first.
    pub order: Order,
}

impl Filter {
    /// The columns of at most `limit` rows.
    pub(crate) fn select(&self, columns: &[Column], limit: usize) -> QueryBuilder<Sqlite> {
        let names: Vec<&str> = columns.iter().map(|column| column.sql()).collect();
        let mut sql = QueryBuilder::new(format!("SELECT {}", names.join(", ")));
        self.rows(&mut sql, columns);
        let order = match self.order {
            Order::Newest => " ORDER BY position DESC LIMIT ",
            Order::Oldest => " ORDER BY position LIMIT ",
        };
        sql.push(order).push_bind(limit as i64);
        sql
    }

    /// How many there are.
    pub(crate) fn count(&self) -> QueryBuilder<Sqlite> {
        let mut sql = QueryBuilder::new("SELECT count(*)");
        self.rows(&mut sql, &[]);
        sql
    }

    /// Where the rows are found; with what they have in common only where it is asked for.
    fn rows(&self, sql: &mut QueryBuilder<Sqlite>, columns: &[Column]) {
        sql.push(" FROM rejected");
        let asks_of_request = columns.iter().any(|column| column.is_of_request());
        if asks_of_request || self.since.is_some() || self.until.is_some() {
            sql.push(" JOIN requests ON last_position = request");
        }
        sql.push(" WHERE true");
        if let Some(sensor) = &self.sensor {
            sql.push(" AND sensor = ").push_bind(sensor.clone());
        }
        if let Some(code) = &self.code {
            sql.push(" AND code = ").push_bind(code.clone());
        }
        let beyond = match self.order {
            Order::Newest => " AND position < ",
            Order::Oldest => " AND position > ",
        };
        let bounds = [
            (" AND received_at >= ", self.since),
            (" AND received_at < ", self.until),
            (beyond, self.beyond),
            (" AND position <= ", self.last),
        ];
        for (is, bound) in bounds {
            if let Some(bound) = bound {
                sql.push(is).push_bind(bound);
            }
        }
    }
}
