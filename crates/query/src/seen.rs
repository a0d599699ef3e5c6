//! Which fields of `data` there are, by type of event.

use crate::error::QueryError;
use crate::fields::FieldTypes;
use crate::locked;
use event::{Kind, SeenFields, ValueKinds};
use lake::{Newest, View};
use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Instant;

/// A field of events of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownField {
    /// As it is asked: `data.room.temperature`.
    pub name: String,
    /// The type that it has then.
    pub kind: String,
    /// Whether it has a column in the lake.
    pub is_column: bool,
    /// What kinds of values it had, as JSON calls them.
    pub values: Vec<&'static str>,
}

/// The fields that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFields {
    /// Those of each type of event, both in the order of their names.
    pub types: Vec<(String, Vec<KnownField>)>,
    /// Whether there may be more than are told.
    pub is_partial: bool,
}

/// What the files of the lake have said, each asked once.
#[derive(Debug, Default)]
pub(crate) struct SeenInFiles(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    files: HashSet<String>,
    fields: SeenFields,
}

/// How long one may look.
pub(crate) struct Limit {
    pub(crate) end: Instant,
    pub(crate) seconds: u64,
}

impl Limit {
    fn check(&self) -> Result<(), QueryError> {
        if Instant::now() < self.end { Ok(()) } else { Err(QueryError::Timeout { timeout_seconds: self.seconds }) }
    }
}

impl SeenInFiles {
    /// The fields of everything that is there now. What files said is kept for the next time.
    pub(crate) fn now(&self, newest: &Newest, limit: &Limit) -> Result<KnownFields, QueryError> {
        // Files first: what is live is held, and is not for as long as they take.
        self.in_lake(&newest.view(), limit)?;
        let (view, live) = newest.with_rows();
        let mut seen = self.in_lake(&view, limit)?;
        for rows in live {
            seen.add_events(&rows);
            limit.check()?;
        }
        Ok(known(&seen, &view))
    }

    fn in_lake(&self, view: &View, limit: &Limit) -> Result<SeenFields, QueryError> {
        let mut seen = locked(&self.0);
        limit.check()?;
        let Seen { files, fields } = &mut *seen;
        let here: HashSet<&str> = view.lake.files.iter().map(|file| file.path.as_str()).collect();
        files.retain(|path| here.contains(path.as_str()));
        let mut unread = false;
        for file in &view.lake.files {
            if files.contains(&file.path) {
                continue;
            }
            match file.seen_fields(&view.lake.root) {
                Some(seen) => {
                    fields.add(&seen);
                    files.insert(file.path.clone());
                }
                // It may be asked the next time.
                None => unread = true,
            }
            limit.check()?;
        }
        let mut all = fields.clone();
        if unread {
            all.add(&SeenFields::unknown());
        }
        Ok(all)
    }
}

fn known(seen: &SeenFields, view: &View) -> KnownFields {
    let types = FieldTypes::new(view);
    let field = |(name, kinds): (&String, &ValueKinds)| {
        let path: Vec<String> = name.split('.').map(str::to_owned).collect();
        KnownField {
            name: format!("{}{name}", event::FIELDS),
            kind: types.of(&path).unwrap_or(Kind::Text).sql().to_owned(),
            is_column: view.lake.fields.get(&path).is_some(),
            values: kinds.names().collect(),
        }
    };
    let of_type = seen.types().map(|(name, fields)| (name.to_owned(), fields.iter().map(field).collect()));
    KnownFields { types: of_type.collect(), is_partial: seen.is_partial() }
}
