//! No row group is passed over that has the id, and most are that do not.

use super::*;
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::file::properties::WriterProperties;

/// A file with a row group for each list of ids, whose filters have room for so many.
fn written(groups: &[Vec<String>], room: u64) -> (tempfile::NamedTempFile, Arc<ParquetMetaData>) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let properties = WriterProperties::builder()
        .set_column_bloom_filter_max_ndv("id".into(), room)
        .set_column_bloom_filter_fpp("id".into(), 0.01)
        .build();
    let batch = |ids: &Vec<String>| {
        let ids: ArrayRef = Arc::new(StringArray::from_iter_values(ids));
        RecordBatch::try_from_iter([("id", ids)]).expect("a column")
    };
    let mut writer = ArrowWriter::try_new(file.reopen().expect("open"), batch(&groups[0]).schema(), Some(properties))
        .expect("a writer");
    for group in groups {
        writer.write(&batch(group)).expect("written");
        writer.flush().expect("a row group");
    }
    writer.close().expect("closed");
    let footer = ArrowReaderMetadata::load(file.as_file(), Default::default()).expect("a footer");
    (file, footer.metadata().clone())
}

fn checked(file: &tempfile::NamedTempFile) -> CheckedFile {
    CheckedFile::open(file.path()).expect("a file")
}

#[test]
fn a_row_group_with_the_id_is_always_read_and_few_others_are() {
    for (of_group, room) in [(1, 1), (7, 131_072), (3000, 3000), (40_000, 131_072)] {
        let groups: Vec<Vec<String>> =
            (0..3).map(|g| (0..of_group).map(|n| format!("{}-{n}", g * 1_000_003 + n * 7919)).collect()).collect();
        let (file, footer) = written(&groups, room);
        assert_eq!(footer.num_row_groups(), groups.len());
        let whole =
            footer.row_groups().iter().filter(|group| filter_of_ids(&checked(&file), group).expect("read").is_some());
        assert_eq!(whole.count(), groups.len(), "each has a filter that is understood");
        let (mut wrong, mut checks) = (0, 0);
        for (g, ids) in groups.iter().enumerate() {
            for id in ids.iter().step_by(1 + of_group / 500) {
                let found = may_have(&checked(&file), &footer, std::slice::from_ref(id)).expect("read");
                assert!(found[g], "{id} is in row group {g}");
                checks += found.len() - 1;
                wrong += found.iter().filter(|may| **may).count() - 1;
            }
        }
        assert!(wrong <= 1 + checks / 20, "{of_group}: {wrong} of {checks}");
        let nothing = may_have(&checked(&file), &footer, &["nobody".into(), "none".into()]).expect("read");
        assert!(nothing.iter().filter(|may| **may).count() <= 1, "{nothing:?}");
        let some = may_have(&checked(&file), &footer, &["nobody".into(), groups[1][0].clone()]).expect("read");
        assert!(some[1]);
    }
}

#[test]
fn what_is_no_filter_as_it_is_written_here_is_not_judged_by() {
    let header = |first: &[u8], rest: [u8; 13]| {
        let mut header = [0; HEADER_BYTES];
        header[..first.len()].copy_from_slice(first);
        header[first.len()..first.len() + rest.len()].copy_from_slice(&rest);
        sizes(&header)
    };
    assert_eq!(header(&[0x15, 0x40], HEADER_REST), Some((15, 32)));
    assert_eq!(header(&[0x15, 0x80, 0x80, 0x10], HEADER_REST), Some((17, 131_072)));
    assert_eq!(header(&[0x16, 0x40], HEADER_REST), None, "another kind of number");
    assert_eq!(header(&[0x15, 0x41], HEADER_REST), None, "a negative number");
    assert_eq!(header(&[0x15, 0x80, 0x80, 0x80, 0x80, 0x80], HEADER_REST), None, "a number without an end");
    let mut other = HEADER_REST;
    other[5] = 0x2c;
    assert_eq!(header(&[0x15, 0x40], other), None, "another hash");
}
