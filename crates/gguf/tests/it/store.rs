//! Stage files on disk: whole or not there, and used again only while they are valid.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use brigade_gguf::testing::TinyModel;
use brigade_gguf::{
    Claim, Layers, Need, Origin, Removal, Source, StageFiles, StoredStage, claim_stage,
    prepare_stage, stored_stages,
};

struct Fixture {
    dir: tempfile::TempDir,
    source: Source,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        TinyModel::llama(4).write(&path).unwrap();
        let source = Source::open(&path).unwrap();
        Self { dir, source }
    }

    fn stages(&self) -> PathBuf {
        self.dir.path().join("stages")
    }

    fn prepare(&self, start: u32, end: u32) -> StageFiles {
        let layers = Layers::new(start, end);
        prepare_stage(&self.source, layers, &self.stages(), |_, _| {}).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.stages())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn a_stage_is_written_once() {
    let fixture = Fixture::new();
    let first = fixture.prepare(0, 2);
    assert_eq!(first.origin, Origin::Written);
    assert_eq!(first.model, fixture.stages().join("0-2.gguf"));
    let embedding = fixture.stages().join("0-2.embd.gguf");
    assert_eq!(first.embedding, Some(embedding));
    assert_eq!(
        fixture.names(),
        ["0-2.embd.gguf", "0-2.gguf", "0-2.json", "0-2.lock"]
    );
    let stage = Source::open(&first.model).unwrap();
    assert_eq!(stage.model().tensor_bytes(), first.bytes.stage);

    let again = fixture.prepare(0, 2);
    assert_eq!(again.origin, Origin::Reused);
    assert_eq!(
        (&again.model, &again.embedding),
        (&first.model, &first.embedding)
    );
    assert_eq!((again.layers, again.bytes), (first.layers, first.bytes));
    let last = fixture.prepare(2, 4);
    assert_eq!((last.origin, last.embedding), (Origin::Written, None));
}

#[test]
fn the_whole_model_is_the_original_file() {
    let fixture = Fixture::new();
    let whole = fixture.prepare(0, 4);
    assert_eq!(whole.origin, Origin::Original);
    assert_eq!(whole.model, fixture.source.path());
    assert_eq!(whole.embedding, None);
    assert_eq!(whole.bytes.total(), fixture.source.model().tensor_bytes());
    assert!(!fixture.stages().exists());
}

#[test]
fn a_valid_file_with_another_time_is_kept() {
    let fixture = Fixture::new();
    let stage = fixture.prepare(0, 2);
    set_time(&stage.model, 1_000_000);
    assert_eq!(fixture.prepare(0, 2).origin, Origin::Reused);
}

#[test]
fn a_damaged_file_is_written_again() {
    let fixture = Fixture::new();
    let stage = fixture.prepare(0, 2);
    let good = fs::read(&stage.model).unwrap();
    let embedding = stage.embedding.unwrap();
    let good_embedding = fs::read(&embedding).unwrap();
    let manifest = fixture.stages().join("0-2.json");

    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
        set_time(path, 1_000_000);
    };
    let cut = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    };
    let damages: [&dyn Fn(); 7] = [
        &|| flip(&stage.model),
        &|| flip(&embedding),
        &|| cut(&stage.model),
        &|| fs::remove_file(&embedding).unwrap(),
        &|| fs::remove_file(&manifest).unwrap(),
        &|| fs::write(&manifest, "{").unwrap(),
        &|| {
            let text = fs::read_to_string(&manifest).unwrap();
            let older = text.replace("\"slicer\": 1", "\"slicer\": 0");
            assert_ne!(text, older);
            fs::write(&manifest, older).unwrap();
        },
    ];
    for (index, damage) in damages.iter().enumerate() {
        damage();
        assert_eq!(fixture.prepare(0, 2).origin, Origin::Written, "{index}");
        assert_eq!(fs::read(&stage.model).unwrap(), good);
        assert_eq!(fs::read(&embedding).unwrap(), good_embedding);
        assert_eq!(fixture.prepare(0, 2).origin, Origin::Reused, "{index}");
    }
}

#[test]
fn another_model_in_its_place_is_cut_anew() {
    let mut fixture = Fixture::new();
    fixture.prepare(0, 2);
    let path = fixture.source.path().to_owned();
    TinyModel::llama(4).seed(2).write(&path).unwrap();
    set_time(&path, 1_000_000);
    // What was opened is no longer there: not even a valid stage file of it can be trusted to
    // go with the stages that other nodes cut.
    let stale = prepare_stage(
        &fixture.source,
        Layers::new(2, 4),
        &fixture.stages(),
        |_, _| {},
    );
    assert!(stale.unwrap_err().to_string().contains("changed"));
    assert!(!fixture.stages().join("2-4.gguf").exists());

    fixture.source = Source::open(&path).unwrap();
    assert_eq!(fixture.prepare(0, 2).origin, Origin::Written);
}

#[test]
fn progress_goes_up_to_the_total() {
    let fixture = Fixture::new();
    let mut seen = vec![(0, 0)];
    let range = Layers::new(0, 2);
    let stage = prepare_stage(&fixture.source, range, &fixture.stages(), |done, total| {
        seen.push((done, total));
    })
    .unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let written = size(&stage.model) + size(&stage.embedding.unwrap());
    assert_eq!(seen.last(), Some(&(written, written)));
}

#[test]
fn slicers_at_once_do_the_work_once() {
    let fixture = Fixture::new();
    let origins: Vec<_> = std::thread::scope(|scope| {
        let work: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| fixture.prepare(0, 2).origin))
            .collect();
        work.into_iter().map(|work| work.join().unwrap()).collect()
    });
    let written = origins.iter().filter(|&&o| o == Origin::Written).count();
    let reused = origins.iter().filter(|&&o| o == Origin::Reused).count();
    assert_eq!((written, reused), (1, 7));
    assert_eq!(fixture.names().len(), 4);
}

#[test]
fn leftovers_of_a_killed_slicer_go() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.stages()).unwrap();
    for name in [".0-2.abc.part", ".2-4.abc.part", "notes.txt"] {
        fs::write(fixture.stages().join(name), "x").unwrap();
    }
    fixture.prepare(0, 2);
    let names = fixture.names();
    assert!(!names.contains(&".0-2.abc.part".into()), "{names:?}");
    // Somebody may be at work on the other stage.
    assert!(names.contains(&".2-4.abc.part".into()));
    assert!(names.contains(&"notes.txt".into()));
}

#[test]
fn a_folder_that_cannot_be_is_named() {
    let fixture = Fixture::new();
    fs::write(fixture.stages(), "a file").unwrap();
    let range = Layers::new(0, 2);
    let error = prepare_stage(&fixture.source, range, &fixture.stages(), |_, _| {});
    let error = error.unwrap_err().to_string();
    assert!(error.contains("stages: cannot write"), "{error}");
}

impl Fixture {
    fn stored(&self) -> Vec<StoredStage> {
        stored_stages(&self.stages())
    }
}

#[test]
fn what_is_used_stays_and_the_rest_can_go() {
    let fixture = Fixture::new();
    let (used, unused) = (fixture.prepare(0, 2), fixture.prepare(2, 4));
    let bytes = fs::metadata(&unused.model).unwrap().len();
    // A clone of a lease is as good as the lease.
    let lease = used.lease.clone();
    drop((used, unused));
    let [first, last] = &fixture.stored()[..] else {
        panic!("{:?}", fixture.stored());
    };
    assert_eq!(
        (first.layers, last.layers),
        (Layers::new(0, 2), Layers::new(2, 4))
    );
    assert!(first.is_complete && last.is_complete);
    let source = fixture.source.path().to_str().map(str::to_owned);
    assert_eq!(first.source, source);
    assert_eq!(
        (first.stored.need(), last.stored.need()),
        (Need::Used, Need::Unused)
    );

    assert_eq!(first.stored.remove().unwrap(), Removal::Refused(Need::Used));
    let Removal::Freed(freed) = last.stored.remove().unwrap() else {
        panic!("refused");
    };
    // The manifest is removed too.
    assert!((bytes..bytes + 4096).contains(&freed), "{freed} of {bytes}");
    assert_eq!(
        fixture.names(),
        ["0-2.embd.gguf", "0-2.gguf", "0-2.json", "0-2.lock"]
    );
    assert_eq!(fixture.prepare(0, 2).origin, Origin::Reused);

    drop(lease);
    assert!(matches!(first.stored.remove().unwrap(), Removal::Freed(_)));
    assert!(!fixture.stages().exists());
    assert_eq!(fixture.prepare(0, 2).origin, Origin::Written);
}

#[test]
fn what_is_being_fetched_stays() {
    let fixture = Fixture::new();
    let layers = Layers::new(0, 2);
    let claim = claim_stage(&fixture.source, layers, &fixture.stages()).unwrap();
    let Claim::Unfilled(unfilled) = claim else {
        panic!("{claim:?}");
    };
    fs::create_dir(unfilled.folder()).unwrap();
    fs::write(unfilled.folder().join("0"), "begun").unwrap();
    let [begun] = &fixture.stored()[..] else {
        panic!("{:?}", fixture.stored());
    };
    assert!(!begun.is_complete);
    assert_eq!(begun.stored.need(), Need::Written);
    assert_eq!(
        begun.stored.remove().unwrap(),
        Removal::Refused(Need::Written)
    );
    drop(unfilled);
    assert_eq!(begun.stored.remove().unwrap(), Removal::Freed(5));
    assert!(!fixture.stages().exists());
}

#[test]
fn removers_and_slicers_at_once_never_take_a_stage_from_its_user() {
    let fixture = Fixture::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let stage = fixture.prepare(0, 2);
                    assert!(Source::open(&stage.model).is_ok());
                    assert!(stage.embedding.unwrap().exists());
                }
            });
            scope.spawn(|| {
                for _ in 0..25 {
                    for stage in fixture.stored() {
                        // Another remover may have been faster.
                        let _ = stage.stored.remove();
                    }
                }
            });
        }
    });
    drop(fixture.prepare(0, 2));
    assert_eq!(fixture.names().len(), 4);
}
