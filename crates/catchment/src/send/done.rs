//! How far sending has come, as it is told when it ends before its input.

/// What became of the events so far.
#[derive(Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) accepted: u64,
    pub(super) duplicates: u64,
    pub(super) rejected: u64,
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { accepted, duplicates, rejected } = self;
        write!(f, "{accepted} accepted, {duplicates} duplicates, {rejected} rejected")
    }
}

/// How far sending has come.
pub(super) struct Done {
    pub(super) totals: Totals,
    /// The line at which the batch at hand begins; all before it have their answer.
    pub(super) first_line: u64,
    /// Lines of the batch at hand; none of an array.
    pub(super) lines: u64,
    pub(super) batch: Fate,
}

/// What is known of the batch at hand.
pub(super) enum Fate {
    NotStored,
    Unknown,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { totals, first_line: first, lines, batch } = self;
        write!(f, "{totals} so far; ")?;
        match (batch, lines) {
            (Fate::NotStored, _) => write!(f, "nothing from line {first} on is stored: go on with --from-line {first}"),
            (Fate::Unknown, 0) => write!(f, "the JSON may be stored or not: look, and send it again if it is not"),
            (Fate::Unknown, _) => write!(
                f,
                "lines {first} to {} may be stored or not: look, and go on with --from-line {} if they are, else with --from-line {first}",
                first + lines - 1,
                first + lines
            ),
        }
    }
}

/// Sending that ended before its input.
pub(super) struct Stopped {
    pub(super) cause: anyhow::Error,
    pub(super) batch: Fate,
}

impl Stopped {
    pub(super) fn undecided(cause: anyhow::Error) -> Self {
        Self { cause, batch: Fate::Unknown }
    }
}

/// Nothing of the batch at hand is stored.
impl From<anyhow::Error> for Stopped {
    fn from(cause: anyhow::Error) -> Self {
        Self { cause, batch: Fate::NotStored }
    }
}
