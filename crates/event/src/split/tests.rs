//! Which fields get a column, and that columns say what the texts say.

use super::value::exact;
use super::*;
use crate::field::FieldRules;
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Float64Type, Int32Type};

fn discovered(texts: &[&str], rules: FieldRules) -> Fields {
    let mut fields = Fields::new([], rules);
    fields.discover([&StringArray::from_iter_values(texts)]);
    fields
}

fn names(fields: &Fields) -> Vec<(String, Kind)> {
    fields.iter().map(|field| (field.column(), field.kind)).collect()
}

/// Texts of events of one type.
fn taken_apart<T: AsRef<str>>(splitter: &mut Splitter, texts: &[T]) -> Split {
    splitter.split(&StringArray::from_iter_values(texts), &StringArray::from_iter_values(texts.iter().map(|_| "event")))
}

fn split(texts: &[&str], fields: &Fields) -> (Vec<i32>, Vec<ArrayRef>) {
    let mut splitter = Splitter::new(fields.clone());
    let Split { mut columns, whole } = taken_apart(&mut splitter, texts);
    let rest = columns.remove(0).as_primitive::<Int32Type>().values().to_vec();
    assert_eq!(whole, rest.iter().copied().min().unwrap_or(WHOLE));
    (rest, columns)
}

#[test]
fn fields_get_columns_in_the_order_of_the_texts_with_the_type_of_the_first_value() {
    let texts = [
        r#"{"value": 1.5, "unit": "C", "ok": true, "gone": null, "list": [1], "where": {"room": "a", "deep": {"x": 1}}}"#,
        r#"{"value": "n/a", "gone": 7, "big": 12345678901234567890, "odd name": 1, "a.b": 2, "Unit": "F"}"#,
        r#"{"big": "text"}"#,
    ];
    let fields = discovered(&texts, FieldRules::default());
    let expected = [
        ("data.value", Kind::Double),
        ("data.unit", Kind::Text),
        ("data.ok", Kind::Boolean),
        ("data.where.room", Kind::Text),
        ("data.where.deep.x", Kind::Double),
        ("data.gone", Kind::Double),
        ("data.big", Kind::Text),
    ];
    assert_eq!(names(&fields), expected.map(|(name, kind)| (name.to_owned(), kind)));
    let columns: Vec<_> =
        fields.columns().iter().map(|column| (column.name().clone(), column.data_type().clone())).collect();
    let of_fields = expected.iter().map(|(name, kind)| ((*name).to_owned(), kind.data_type()));
    assert_eq!(
        columns,
        std::iter::once((crate::REST.to_owned(), DataType::Int32)).chain(of_fields).collect::<Vec<_>>()
    );
    assert!(!fields.is_empty() && discovered(&["{}"], FieldRules::default()).is_empty());
    assert_eq!([Kind::Double, Kind::Boolean, Kind::Text].map(Kind::sql), ["double", "boolean", "text"]);
    assert_eq!(fields.get(&["where", "room"]), Some((3, Kind::Text)));
    assert_eq!(fields.get(&["where.room"]), None, "a name with a point is another field");
    let again: Vec<Field> =
        fields.iter().map(|f| Field::of_column(&f.column(), f.kind).expect("a column of a field")).collect();
    assert_eq!(again, fields.iter().cloned().collect::<Vec<_>>());
}

#[test]
fn a_path_has_so_many_bytes_with_its_points_and_no_more() {
    let path = |bytes: usize| format!(r#"{{"a": {{"{}": 1}}}}"#, "b".repeat(bytes - 3));
    let columns = |bytes: usize| discovered(&[&path(bytes)], FieldRules::default()).len();
    assert_eq!((columns(PATH_BYTES_MAX), columns(PATH_BYTES_MAX + 1)), (1, 0));
}

#[test]
fn a_text_of_so_many_bytes_is_in_its_column_and_a_longer_one_is_not() {
    let fields = discovered(&[r#"{"t": "x"}"#], FieldRules::default());
    for (bytes, whole) in [(256, WHOLE), (257, 0)] {
        let (rest, columns) = split(&[&format!(r#"{{"t": "{}"}}"#, "x".repeat(bytes))], &fields);
        assert_eq!((rest, columns[0].null_count() == 0), (vec![whole], whole == WHOLE), "{bytes}");
    }
}

#[test]
fn so_many_names_are_told_apart_and_no_more() {
    // One of the names is that of the whole.
    for (names, is_partial) in [(NAMES_MAX - 1, false), (NAMES_MAX, true)] {
        let members: Vec<String> = (0..names).map(|n| format!("\"n{n}\":null")).collect();
        let mut splitter = Splitter::new(Fields::default());
        taken_apart(&mut splitter, &[format!("{{{}}}", members.join(","))]);
        assert_eq!(splitter.seen().is_partial(), is_partial, "{names}");
    }
}

#[test]
fn rows_say_which_columns_have_all_that_the_text_has() {
    let fields = discovered(&[r#"{"n": 1, "t": "x", "in": {"b": true, "c": 1}}"#], FieldRules::default());
    for (text, whole) in [
        (r#"{"n": 2, "t": "y", "in": {"b": false}}"#, WHOLE),
        (r#"{"t": null, "in": {}}"#, WHOLE),
        (r#"{}"#, WHOLE),
        ("[1,2]", WHOLE),
        (r#"{"n": "n/a"}"#, 0),
        (r#"{"n": 9007199254740993}"#, 0),
        (r#"{"n": 1, "n": 2}"#, 0),
        (r#"{"\u006e": 1}"#, 0),
        (r#"{"t": 5}"#, 0),
        (r#"{"t": [1]}"#, 0),
        (r#"{"t": {}}"#, 0),
        // As a number it is null both ways.
        (r#"{"n": [1]}"#, WHOLE),
        (r#"{"in": {"c": 1, "b": true}}"#, WHOLE),
        (r#"{"in": 5}"#, 4),
        // These may get a column later.
        (r#"{"list": [1]}"#, 4),
        (r#"{"object": {}}"#, 4),
        (r#"{"new": 5}"#, 4),
        (r#"{"huge": 12345678901234567890}"#, 4),
        // These never do.
        (r#"{"odd name": 5, "é": [1]}"#, WHOLE),
    ] {
        assert_eq!(split(&[text], &fields).0, [whole], "{text}");
    }
    for (digits, whole) in [(4300, WHOLE), (4301, 0)] {
        let long = format!(r#"{{"é": [-{}], "n": 2}}"#, "9".repeat(digits));
        assert_eq!(split(&[&long], &fields).0, [whole], "{digits} digits");
    }
    let (rest, columns) = split(&[r#"{"n": 1}"#, r#"{"n": "n/a"}"#, "{}", r#"{"n": -0.5e2}"#], &fields);
    assert_eq!(rest, [WHOLE, 0, WHOLE, WHOLE]);
    let numbers: Vec<Option<f64>> = columns[0].as_primitive::<Float64Type>().iter().collect();
    assert_eq!(numbers, [Some(1.0), None, None, Some(-50.0)]);
    assert_eq!(columns.iter().map(|column| column.len()).collect::<Vec<_>>(), [4, 4, 4, 4]);
}

#[test]
fn a_value_of_each_kind_is_in_its_row_and_rows_without_one_are_null() {
    let fields = discovered(&[r#"{"n": 1, "b": true, "t": "x"}"#], FieldRules::default());
    let mut splitter = Splitter::new(fields.clone());
    assert_eq!(splitter.fields().iter().collect::<Vec<_>>(), fields.iter().collect::<Vec<_>>());
    let texts =
        [r#"{"t": "a", "b": false}"#, r#"{"n": 5}"#, r#"{"n": 6, "b": true}"#, r#"{"t": "d", "new": [1]}"#, "{}"];
    let columns = taken_apart(&mut splitter, &texts).columns;
    let numbers: Vec<Option<f64>> = columns[1].as_primitive::<Float64Type>().iter().collect();
    let booleans: Vec<Option<bool>> = columns[2].as_boolean().iter().collect();
    let words: Vec<Option<&str>> = columns[3].as_string::<i32>().iter().collect();
    assert_eq!(numbers, [None, Some(5.0), Some(6.0), None, None]);
    assert_eq!(booleans, [Some(false), None, Some(true), None, None]);
    assert_eq!(words, [Some("a"), None, None, Some("d"), None]);
    let seen = splitter.seen();
    let seen: Vec<&str> = seen.types().flat_map(|(_, fields)| fields.keys().map(String::as_str)).collect();
    assert_eq!(seen, ["b", "n", "new", "t"]);
}

#[test]
fn only_numbers_that_a_double_is_are_columns() {
    for number in [
        "0",
        "-0",
        "21.5",
        "1e5",
        "1.50",
        "0.1",
        "0.30000000000000004",
        "9007199254740992",
        "1E+2",
        "5e-324",
        "1000000000000000000000",
        "0.000000000000000000001",
    ] {
        assert_eq!(exact(number), number.parse().ok(), "{number}");
    }
    for other in
        ["9007199254740993", "0.1000000000000000055", "1e400", "-1e999999999999999999999", "1.00000000000000001"]
    {
        assert_eq!(exact(other), None, "{other}");
    }
}

#[test]
fn columns_are_bounded_and_may_be_chosen() {
    let texts = [r#"{"a": 1, "b": {"c": 2, "d": 3}, "e": 4, "A": 5}"#];
    let chosen = |allow: &[&str], deny: &[&str], columns_max| {
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let rules = FieldRules { columns_max, allow: owned(allow), deny: owned(deny) };
        names(&discovered(&texts, rules)).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&[], &[], 2), ["data.a", "data.b.c"]);
    assert_eq!(chosen(&["b"], &[], 256), ["data.b.c", "data.b.d"]);
    assert_eq!(chosen(&[], &["b.c", "e"], 256), ["data.a", "data.b.d"], "A is a, but for capital letters");

    let many = format!("{{{}}}", (0..10_000).map(|n| format!("\"k{n}\": {n}")).collect::<Vec<_>>().join(","));
    let fields = discovered(&[&many], FieldRules::default());
    assert_eq!(fields.len(), 256);
    let (rest, columns) = split(&[&many], &fields);
    assert_eq!((rest, columns.len()), (vec![256], 256));
}

#[test]
fn names_that_can_have_no_column_take_no_room_and_cuts_make_no_difference() {
    let junk = |from: usize| {
        format!("{{{}}}", (from..from + 5000).map(|n| format!("\"{n}-x\":1")).collect::<Vec<_>>().join(","))
    };
    let names = |from: usize| {
        format!("{{{}}}", (from..from + 5000).map(|n| format!("\"n{n}\":null")).collect::<Vec<_>>().join(","))
    };
    let texts = [junk(0), r#"{"t": 1}"#.into(), names(0), r#"{"late": 1}"#.into(), r#"{"t": "x"}"#.into()];
    let whole = StringArray::from_iter_values(&texts);
    for cut in 0..=texts.len() {
        let mut fields = Fields::default();
        fields.discover([&whole.slice(0, cut), &whole.slice(cut, texts.len() - cut)]);
        // There are too many names when `late` comes: it waits for another time.
        assert_eq!(self::names(&fields), [("data.t".to_owned(), Kind::Double)], "cut at {cut}");
    }
    let mut splitter = Splitter::new(Fields::default());
    taken_apart(&mut splitter, &[names(0), r#"{"late": 1}"#.into()]);
    assert!(splitter.saw_new(), "what is not known may be new");
}

#[test]
fn a_new_field_is_seen_as_long_as_it_may_get_a_column() {
    let rules = FieldRules { columns_max: 2, ..FieldRules::default() };
    let sees = |text: &str, fields: &Fields| {
        let mut splitter = Splitter::new(fields.clone());
        taken_apart(&mut splitter, &[text]);
        splitter.saw_new()
    };
    let one = discovered(&[r#"{"a": 1}"#], rules.clone());
    assert!(sees(r#"{"b": 1}"#, &one));
    for text in [r#"{"a": "x"}"#, r#"{"A": 1}"#, r#"{"b": null}"#, r#"{"b": [1]}"#, r#"{"odd name": 1}"#] {
        assert!(!sees(text, &one), "{text}");
    }
    let two = discovered(&[r#"{"a": 1, "b": 1}"#], rules);
    assert!(!sees(r#"{"c": 1}"#, &two), "there is no room");
}
