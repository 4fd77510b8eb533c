//! Models in files, whole and in parts.

use std::fs;
use std::path::Path;

use brigade_gguf::testing::TinyModel;
use brigade_gguf::{GgufError, Source, Value};

fn error(path: &Path) -> String {
    Source::open(path).expect_err("must be refused").to_string()
}

#[test]
fn a_single_file_is_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    TinyModel::llama(2).write(&path).unwrap();
    let source = Source::open(&path).unwrap();
    assert_eq!(source.path(), path);
    assert_eq!(source.header().block_count().unwrap(), 2);
    assert_eq!(source.header().name(), Some("tiny llama"));
    assert!(source.header().chat_template().is_some());
    assert_eq!(
        source.model().file_bytes(),
        fs::metadata(&path).unwrap().len()
    );
}

#[test]
fn any_part_leads_to_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let model = TinyModel::llama(3);
    let whole = dir.path().join("whole.gguf");
    model.write(&whole).unwrap();
    let whole = Source::open(&whole).unwrap();
    let paths = model.write_parts(dir.path(), "a-model", 3).unwrap();
    for path in &paths {
        let source = Source::open(path).unwrap();
        assert_eq!(source.path(), paths[0]);
        let found: Vec<_> = source.files().iter().map(|file| &file.path).collect();
        assert!(found.iter().copied().eq(&paths));
        let names = |source: &Source| -> Vec<_> {
            let tensors = source.model().tensors();
            tensors
                .map(|tensor| tensor.info.name().to_owned())
                .collect()
        };
        assert_eq!(names(&source), names(&whole));
        assert_eq!(source.model().tensor_bytes(), whole.model().tensor_bytes());
        assert_eq!(source.header().block_count().unwrap(), 3);
    }
    assert_ne!(
        Source::open(&paths[0]).unwrap().model().identity(),
        whole.model().identity()
    );
}

#[test]
fn a_missing_part_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let paths = TinyModel::llama(3).write_parts(dir.path(), "m", 3).unwrap();
    fs::remove_file(&paths[1]).unwrap();
    for path in [&paths[0], &paths[2]] {
        let error = error(path);
        assert!(error.contains("part 2 of 3"), "{error}");
        assert!(error.contains("m-00002-of-00003.gguf"), "{error}");
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let paths = TinyModel::llama(3).write_parts(dir.path(), "m", 3).unwrap();
    let renamed = dir.path().join("renamed.gguf");
    fs::copy(&paths[0], &renamed).unwrap();
    assert!(error(&renamed).contains("rename the parts"));

    let second = fs::read(&paths[1]).unwrap();
    fs::copy(&paths[2], &paths[1]).unwrap();
    assert!(error(&paths[0]).contains("not part 2 of 3"));
    TinyModel::llama(3).write(&paths[1]).unwrap();
    assert!(error(&paths[0]).contains("it says it is one of 1"));
    // Part 2 of a model with other layers: the tensors are not as many as they should be.
    let other = TinyModel::llama(6).to_parts(3);
    fs::write(&paths[1], &other[1]).unwrap();
    let message = error(&paths[0]);
    assert!(
        message.contains("tensors in all") || message.contains("in two parts"),
        "{message}"
    );
    fs::write(&paths[1], second).unwrap();
    assert!(Source::open(&paths[0]).is_ok());
}

#[test]
fn what_is_no_model_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let message = error(&path);
    assert!(message.contains("x.gguf: cannot read"), "{message}");
    assert!(error(dir.path()).ends_with("not a regular file"));
    fs::write(&path, "<!doctype html>").unwrap();
    assert!(error(&path).ends_with("x.gguf: not a GGUF file"));
    let bytes = TinyModel::llama(1).to_bytes();
    fs::write(&path, &bytes[..bytes.len() - 64]).unwrap();
    assert!(error(&path).contains("truncated"));
}

#[test]
fn a_model_that_changes_is_not_read_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    TinyModel::llama(1).write(&path).unwrap();
    let source = Source::open(&path).unwrap();
    assert_eq!(source.open_files().unwrap().len(), 1);
    let more = TinyModel::llama(1).with_key("k", Value::U64(1));
    fs::write(&path, [more.to_bytes(), vec![0; 32]].concat()).unwrap();
    assert!(matches!(
        source.open_files(),
        Err(GgufError::InFile { error, .. }) if matches!(*error, GgufError::Changed)
    ));
}
