//! What the table of rejected events promises.

use bytes::Bytes;
use rejected::{Column, Erased, Extent, Filter, NewRow, Options, Order, Origin, Rejected, RejectedMetrics, Row};
use std::path::Path;
use std::time::Duration;

const ALL: usize = usize::MAX >> 1;

fn options(dir: &Path) -> Options {
    Options {
        path: dir.join("rejected.sqlite"),
        bytes_max: 1 << 20,
        event_bytes_max: 1000,
        age_max: Duration::from_secs(3600),
    }
}

async fn open(options: Options) -> Rejected {
    Rejected::open(options, RejectedMetrics::default()).await.expect("opens")
}

fn origin(sensor: &str, received_at: i64) -> Origin {
    let request_id = "request".to_owned();
    Origin { sensor: sensor.to_owned(), request_id, received_at, mode: "plain", ..Origin::default() }
}

fn row(index: u64, data: &[u8]) -> NewRow {
    let reason = "because".to_owned();
    NewRow { index, code: "invalid_json", pointer: None, reason, data: Bytes::copy_from_slice(data) }
}

async fn data(table: &Rejected, filter: Filter) -> Vec<String> {
    let rows = table.read(&filter, &Column::ALL, 100_000, ALL).await.expect("reads");
    rows.iter().map(|row| String::from_utf8_lossy(&row.data).into_owned()).collect()
}

fn of(sensor: &str) -> Filter {
    Filter { sensor: Some(sensor.to_owned()), order: Order::Oldest, ..Filter::default() }
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_micros() as i64
}

#[tokio::test]
async fn rows_are_there_again_after_another_opening_and_their_positions_are_never_used_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(options(dir.path())).await;
    table.keep(origin("roof", 7), vec![row(0, b"{a"), row(3, b"\xff")]).await.expect("kept");
    // No close: what is kept is kept.
    drop(table);
    let table = open(Options { age_max: Duration::ZERO, ..options(dir.path()) }).await;
    let rows = table.read(&Filter::default(), &Column::ALL, 10, ALL).await.expect("reads");
    let shown: Vec<_> = rows.iter().map(|r| (r.position, r.index, r.received_at, &r.data[..], r.is_cut)).collect();
    assert_eq!(shown, [(2, 3, 7, &b"\xff"[..], false), (1, 0, 7, b"{a", false)], "newest first");
    table.expire().await.expect("expires");
    assert_eq!(data(&table, Filter::default()).await, [""; 0]);
    table.keep(origin("roof", 8), vec![row(0, b"b")]).await.expect("kept");
    assert_eq!(table.last_position().await.expect("reads"), 3);
}

#[tokio::test]
async fn rows_are_found_by_sensor_code_time_and_position_in_both_orders() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(options(dir.path())).await;
    for (n, sensor) in ["a", "b", "a", "b"].iter().enumerate() {
        table.keep(origin(sensor, n as i64), vec![row(0, n.to_string().as_bytes())]).await.expect("kept");
    }
    assert_eq!(data(&table, of("a")).await, ["0", "2"]);
    assert_eq!(data(&table, Filter { since: Some(1), until: Some(3), ..Filter::default() }).await, ["2", "1"]);
    assert_eq!(data(&table, Filter { beyond: Some(3), ..Filter::default() }).await, ["1", "0"]);
    assert_eq!(data(&table, Filter { beyond: Some(3), order: Order::Oldest, ..Filter::default() }).await, ["3"]);
    assert_eq!(data(&table, Filter { code: Some("other".to_owned()), ..Filter::default() }).await, [""; 0]);
    assert_eq!(table.read(&Filter::default(), &Column::ALL, 3, ALL).await.expect("reads").len(), 3);
    assert_eq!(
        table.read(&Filter::default(), &Column::ALL, 3, 1).await.expect("reads").len(),
        1,
        "bounded by memory too"
    );
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(options(dir.path())).await;
    for n in 0..4 {
        let origin = Origin { is_cut: n == 3, ..origin(["a", "b"][n % 2], n as i64) };
        table.keep(origin, vec![row(7, &[b'x'; 900]), row(8, &[b'x'; 1100])]).await.expect("kept");
    }
    let oldest = Filter { order: Order::Oldest, ..Filter::default() };
    let some = [Column::Code, Column::Position];
    let rows = table.read(&Filter { last: Some(1), ..oldest.clone() }, &some, 10, ALL).await.expect("reads");
    assert_eq!(rows, [Row { position: 1, code: "invalid_json".to_owned(), ..Row::default() }]);
    let cut = table.read(&oldest, &[Column::IsCut], 10, ALL).await.expect("reads");
    assert_eq!(
        cut.iter().map(|row| row.is_cut).collect::<Vec<_>>(),
        [false, true, false, true, false, true, true, true],
        "told without the bytes"
    );
    assert_eq!(cut[1], Row { is_cut: true, ..Row::default() });

    // Without what is kept for the rows of a request, as without their bytes: what is not read may be damaged.
    let path = dir.path().join("rejected.sqlite");
    let connect = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut beside = sqlx::ConnectOptions::connect(&connect).await.expect("opens");
    sqlx::query("DELETE FROM requests").execute(&mut beside).await.expect("deletes");
    assert_eq!(table.read(&oldest, &[Column::Position, Column::Data], 10, ALL).await.expect("reads").len(), 8);
    assert_eq!(table.read(&oldest, &[Column::Position, Column::Mode], 10, ALL).await.expect("reads").len(), 0);
    let count = async |filter| table.count(&filter).await.expect("counts");
    assert_eq!(count(Filter::default()).await, 8);
    assert_eq!(count(Filter { last: Some(6), ..of("a") }).await, 4);
    assert_eq!(count(Filter { beyond: Some(6), ..of("b") }).await, 2);
}

#[tokio::test]
async fn a_sensor_that_floods_the_table_pushes_out_its_own_rows_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let limited = Options { bytes_max: 100_000, ..options(dir.path()) };
    let table = open(limited.clone()).await;
    table.keep(origin("quiet", 1), vec![row(0, b"first"), row(1, b"second")]).await.expect("kept");
    let flood: Vec<NewRow> = (0..2000).map(|n| row(n, format!("{n}").as_bytes())).collect();
    table.keep(origin("loud", 2), flood.clone()).await.expect("kept");
    assert_eq!(data(&table, of("quiet")).await, ["first", "second"]);
    let loud = data(&table, of("loud")).await;
    assert!((100..1000).contains(&loud.len()), "{} fit in 100 kB", loud.len());
    assert_eq!(loud.last().map(String::as_str), Some("1999"), "the oldest went");

    // What each holds is known again after an opening.
    let table = {
        drop(table);
        open(limited).await
    };
    table.keep(origin("loud", 3), flood[..10].to_vec()).await.expect("kept");
    assert_eq!(data(&table, of("quiet")).await, ["first", "second"]);
    assert!(data(&table, of("loud")).await.len() <= loud.len() + 1);
}

#[tokio::test]
async fn nobody_loses_rows_who_holds_no_more_than_an_equal_share_and_who_holds_most_does() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(Options { bytes_max: 300_000, ..options(dir.path()) }).await;
    let flood = |bytes: usize| -> Vec<NewRow> { (0..bytes as u64 / 1160).map(|n| row(n, &[b'x'; 990])).collect() };
    table.keep(origin("first", 1), flood(280_000)).await.expect("kept");
    table.keep(origin("small", 2), flood(90_000)).await.expect("kept");
    let held = async |sensor: &str| table.read(&of(sensor), &Column::ALL, 100_000, ALL).await.expect("reads").len();
    let (first, small) = (held("first").await, held("small").await);
    assert!(small == 77 && (175..185).contains(&first), "{first}, {small}: who was first and holds more gave way");
    for n in 0..5 {
        table.keep(origin("loud", n), flood(280_000)).await.expect("kept");
    }
    assert_eq!(held("small").await, small, "less than a third of all");
    assert!((85..100).contains(&held("first").await), "{}: down to about a third, and no further", held("first").await);
    let most = table.most(2).await.expect("answers");
    assert_eq!(most.len(), 2);
    assert!(most.iter().all(|(sensor, bytes)| sensor != "small" && *bytes > 85_000), "{most:?}");
    assert!(most[0].1 >= most[1].1, "most first: {most:?}");
}

#[tokio::test]
async fn what_a_request_said_is_kept_once_for_its_rows_and_goes_with_the_last_of_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let limited = Options { bytes_max: 400_000, ..options(dir.path()) };
    let table = open(limited.clone()).await;
    let long = Origin {
        content_type: Some("x".repeat(10_000)),
        parameters: Some("id_field=/dev".to_owned()),
        ..origin("roof", 7)
    };
    table.keep(long.clone(), (0..1000).map(|n| row(n, b"1")).collect()).await.expect("kept");
    let rows = table.read(&of("roof"), &Column::ALL, 10_000, ALL).await.expect("reads");
    assert_eq!(rows.len(), 1000, "not a copy for each");
    assert!(
        rows.iter()
            .all(|r| r.content_type == long.content_type && r.parameters == long.parameters && r.mode == "plain")
    );
    table.keep(origin("roof", 8), (0..5000).map(|n| row(n, b"2")).collect()).await.expect("kept");
    assert!(data(&table, of("roof")).await.iter().all(|data| data == "2"), "pushed out");
    table.keep(long, vec![row(0, b"3")]).await.expect("kept");
    drop(table);
    let table = open(Options { age_max: Duration::ZERO, ..limited }).await;
    assert_eq!(data(&table, of("roof")).await.last().map(String::as_str), Some("3"));
    table.expire().await.expect("expires");
    table.close().await;
    let requests =
        sqlx::sqlite::SqlitePool::connect(&format!("sqlite:{}", dir.path().join("rejected.sqlite").display()))
            .await
            .expect("opens");
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM requests").fetch_one(&requests).await.expect("reads");
    assert_eq!(count, 0, "nothing is left of any request");
}

#[tokio::test]
async fn a_request_with_much_to_keep_is_bounded_and_lets_others_have_their_turn() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(Options { bytes_max: 1 << 30, event_bytes_max: 64 << 10, ..options(dir.path()) }).await;
    let large: Vec<NewRow> = (0..500).map(|n| row(n, &[b'x'; 64 << 10])).collect();
    let mut much = Box::pin(table.keep(origin("loud", 1), large));
    assert!(futures::poll!(much.as_mut()).is_pending(), "handed in first");
    let little = table.keep(origin("quiet", 2), vec![row(0, b"a")]);
    let first = futures::future::select(much, Box::pin(little)).await;
    let futures::future::Either::Right((Ok(()), much)) = first else {
        panic!("the small one waited for all of the large one")
    };
    much.await.expect("kept");
    let kept = table.read(&of("loud"), &Column::ALL, 1000, ALL).await.expect("reads");
    assert!((240..256).contains(&kept.len()), "{} of 64 KiB in 16 MiB", kept.len());
    assert_eq!(kept.last().map(|row| row.index), Some(kept.len() as i64 - 1), "the first ones");
}

#[tokio::test]
async fn long_data_is_cut_between_characters_and_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(options(dir.path())).await;
    let text = format!("{}é", "x".repeat(999));
    table.keep(origin("roof", 1), vec![row(0, text.as_bytes()), row(1, &[0xff; 2000])]).await.expect("kept");
    let rows = table.read(&of("roof"), &Column::ALL, 10, ALL).await.expect("reads");
    let shown: Vec<_> = rows.iter().map(|r| (r.data.len(), r.bytes, r.is_cut)).collect();
    assert_eq!(shown, [(999, 1001, true), (1000, 2000, true)]);
}

#[tokio::test]
async fn rows_go_when_they_are_too_old_and_younger_ones_stay() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(options(dir.path())).await;
    let old: Vec<NewRow> = (0..1200).map(|n| row(n, b"old")).collect();
    table.keep(origin("roof", now() - 3601 * 1_000_000), old).await.expect("kept");
    table.keep(origin("roof", now()), vec![row(0, b"young")]).await.expect("kept");
    table.expire().await.expect("expires");
    assert_eq!(data(&table, of("roof")).await, ["young"]);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_moved_aside_and_named() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(
        dir.path().join("rejected.sqlite"),
        b"this is no database, and long enough to be looked at".repeat(40),
    )
    .expect("written");
    let table = Rejected::open(options(dir.path()), RejectedMetrics::default()).await.expect("another one");
    let trouble = table.trouble().expect("it says so");
    assert!(trouble.contains("rejected.sqlite.damaged-"), "{trouble}");
}

#[tokio::test]
async fn the_database_of_another_program_is_moved_aside_as_it_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let connect = sqlx::sqlite::SqliteConnectOptions::new();
    let other = connect.filename(dir.path().join("rejected.sqlite")).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(other).await.expect("opens");
    sqlx::query("CREATE TABLE mine (a)").execute(&pool).await.expect("made");
    pool.close().await;
    let table = Rejected::open(options(dir.path()), RejectedMetrics::default()).await.expect("another one");
    let trouble = table.trouble().expect("it says so");
    assert!(trouble.contains("it is the database of something else"), "{trouble}");
}

#[tokio::test]
async fn what_is_handed_in_is_kept_although_its_caller_is_gone_and_many_at_once_keep_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(options(dir.path())).await;
    let mut gone = Box::pin(table.keep(origin("gone", 1), vec![row(0, b"a")]));
    assert!(futures::poll!(gone.as_mut()).is_pending());
    drop(gone);
    let many = (0..50).map(|n| table.keep(origin(&format!("s{}", n % 5), n), vec![row(0, b"b")]));
    assert!(futures::future::join_all(many).await.iter().all(Result::is_ok));
    assert_eq!(table.read(&Filter::default(), &Column::ALL, 100, ALL).await.expect("reads").len(), 51);
}

#[tokio::test]
async fn of_a_request_all_is_kept_or_nothing_and_the_table_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(options(dir.path())).await;
    table.keep(origin("roof", 1), vec![row(0, b"before")]).await.expect("kept");
    let beside = format!("sqlite:{}", dir.path().join("rejected.sqlite").display());
    let beside = sqlx::sqlite::SqlitePool::connect(&beside).await.expect("opens");
    // Far behind what is written at once, and as a full disk: SQLite takes all back by itself.
    let trouble = "CREATE TRIGGER trouble BEFORE INSERT ON rejected WHEN new.batch_index = 4000 BEGIN SELECT RAISE(ROLLBACK, 'trouble'); END";
    sqlx::query(trouble).execute(&beside).await.expect("made");
    let many: Vec<NewRow> = (0..4500).map(|n| row(n, b"many")).collect();
    table.keep(origin("roof", 2), many.clone()).await.expect_err("the trouble");
    assert_eq!(data(&table, of("roof")).await, ["before"]);
    sqlx::query("DROP TRIGGER trouble").execute(&beside).await.expect("gone");
    table.keep(origin("roof", 3), many).await.expect("kept");
    assert_eq!(table.last_position().await.expect("reads"), 4501);
    assert_eq!(data(&table, of("roof")).await.len(), 4501);
}

#[tokio::test]
async fn it_is_known_how_many_rows_are_gone_also_after_another_opening() {
    let dir = tempfile::tempdir().expect("a folder");
    let limited = Options { bytes_max: 100_000, ..options(dir.path()) };
    let table = open(limited.clone()).await;
    let gone = async |table: &Rejected| {
        let Extent { rows, last_position } = table.extent().await.expect("answers");
        (rows, last_position - rows)
    };
    assert_eq!(gone(&table).await, (0, 0));
    table.keep(origin("quiet", 1), vec![row(0, b"first")]).await.expect("kept");
    assert_eq!(gone(&table).await, (1, 0));
    let flood: Vec<NewRow> = (0..2000).map(|n| row(n, format!("{n}").as_bytes())).collect();
    table.keep(origin("loud", 2), flood).await.expect("kept");
    let loud = table.read(&of("loud"), &[Column::Position], 10_000, ALL).await.expect("reads").len() as i64;
    assert_eq!(gone(&table).await, (loud + 1, 2000 - loud));
    drop(table);
    let table = open(Options { age_max: Duration::ZERO, ..limited.clone() }).await;
    assert_eq!(gone(&table).await, (loud + 1, 2000 - loud));
    table.expire().await.expect("expires");
    assert_eq!(gone(&table).await, (0, 2001));
    drop(table);
    assert_eq!(gone(&open(limited).await).await, (0, 2001), "also when the last rows are gone");
}

/// Whether a text is in the file of the table or in one beside it.
fn is_on_disk(dir: &Path, text: &str) -> bool {
    let files = std::fs::read_dir(dir).expect("a folder").flatten().map(|file| file.path());
    files.map(|path| std::fs::read(path).expect("readable")).any(|bytes| {
        let mut windows = bytes.windows(text.len());
        windows.any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn what_is_erased_is_in_no_file_and_what_others_sent_and_what_came_later_is_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(options(dir.path())).await;
    let secret = |n: u64| row(n, format!("{{secret-{n} {}", "x".repeat(200)).as_bytes());
    for n in 0..4 {
        table.keep(origin("cellar", n), (0..300).map(secret).collect()).await.expect("kept");
        table.keep(origin("roof", n), vec![row(0, b"{roof")]).await.expect("kept");
    }
    let until = table.last_position().await.expect("reads");
    table.keep(origin("cellar", 9), vec![row(0, b"{later")]).await.expect("kept");
    assert!(is_on_disk(dir.path(), "secret-7"));
    assert_eq!(table.erase("cellar", until).await.expect("erased"), Erased::Wholly);
    assert!(!is_on_disk(dir.path(), "secret-"));
    assert_eq!(
        (data(&table, of("cellar")).await, data(&table, of("roof")).await.len()),
        (vec!["{later".to_owned()], 4)
    );
    let Extent { rows, last_position } = table.extent().await.expect("told");
    assert_eq!((rows, last_position), (5, 4 * 301 + 1));
    assert_eq!(table.most(9).await.expect("told").len(), 2);
    table.erase("cellar", until).await.expect("nothing to do");
    table.erase("nobody", i64::MAX).await.expect("nothing to do");
}

#[tokio::test]
async fn rows_that_had_gone_before_are_in_no_file_either_when_a_program_of_before_let_them_go() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(options(dir.path())).await;
    table.keep(origin("cellar", 1), vec![row(0, b"{secret"), row(1, b"{other")]).await.expect("kept");
    table.close().await;
    drop(table);
    let url = format!("sqlite://{}", dir.path().join("rejected.sqlite").display());
    let before = sqlx::SqlitePool::connect(&url).await.expect("opens");
    let delete = "PRAGMA secure_delete = OFF; DELETE FROM rejected WHERE batch_index = 0; PRAGMA user_version = 2";
    sqlx::raw_sql(delete).execute(&before).await.expect("deleted");
    before.close().await;
    assert!(is_on_disk(dir.path(), "{secret"), "as it was");
    let table = open(options(dir.path())).await;
    table.erase("cellar", 1).await.expect("erased");
    assert!(!is_on_disk(dir.path(), "{secret"));
    assert_eq!(data(&table, of("cellar")).await, ["{other"]);
    drop(table);
    assert_eq!(data(&open(options(dir.path())).await, of("cellar")).await, ["{other"], "it opens again");
}
