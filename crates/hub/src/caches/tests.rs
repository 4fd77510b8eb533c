use std::fs;
use std::path::{Path, PathBuf};

use brigade_gguf::testing::TinyModel;

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A folder for everything, and caches in it.
struct Fixture {
    folder: tempfile::TempDir,
    caches: Caches,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| vec![folder.path().join(name)];
        let caches = Caches {
            hugging_face: at("hf"),
            lm_studio: at("lm"),
            ollama: at("ollama"),
        };
        Self { folder, caches }
    }

    fn write(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn model(&self, path: &str) -> PathBuf {
        self.write(path, &TinyModel::llama(2).to_bytes())
    }

    /// As Hugging Face's tools lay a file down.
    fn snapshot(&self, repo: &str, commit: &str, file: &str) -> PathBuf {
        let repo = format!("hf/models--{}", repo.replace('/', "--"));
        let blob = self.model(&format!("{repo}/blobs/{}", file.replace('/', "_")));
        let link = self
            .folder
            .path()
            .join(format!("{repo}/snapshots/{commit}/{file}"));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(blob, &link).unwrap();
        link
    }

    fn manifest(&self, path: &str, hash: &str, size: usize) {
        let layers = serde_json::json!({ "schemaVersion": 2, "layers": [
            { "mediaType": "application/vnd.ollama.image.template", "digest": "sha256:1", "size": 1 },
            { "mediaType": "application/vnd.ollama.image.model", "digest": format!("sha256:{hash}"), "size": size },
        ]});
        self.write(
            &format!("ollama/manifests/{path}"),
            layers.to_string().as_bytes(),
        );
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let found = self.caches.find(&name.parse().unwrap()).unwrap();
        found.map(|source| source.path().to_owned())
    }
}

fn references(kept: &[Kept]) -> Vec<&str> {
    kept.iter().map(|kept| &*kept.reference).collect()
}

#[test]
fn nothing_is_found_where_there_is_nothing() {
    let fixture = Fixture::new();
    for name in ["hf:o/r", "hf:o/r:Q4_K_M@main", "m.gguf", "https://h/m.gguf"] {
        assert_eq!(fixture.find(name), None, "{name}");
    }
    assert_eq!(fixture.caches.list(), []);
}

#[test]
fn hugging_face_by_repository_and_revision() {
    let fixture = Fixture::new();
    let other = "f".repeat(40);
    let new = fixture.snapshot("o/r-GGUF", COMMIT, "r-Q4_K_M.gguf");
    let old = fixture.snapshot("o/r-GGUF", &other, "r-Q4_K_M.gguf.old/r-Q8_0.gguf");
    // Without a branch it is not known what `main` is.
    assert_eq!(fixture.find("hf:o/r-GGUF:Q4_K_M"), None);
    fixture.write("hf/models--o--r-GGUF/refs/main", COMMIT.as_bytes());
    fixture.write("hf/models--o--r-GGUF/refs/pr/1", other.as_bytes());
    for (name, expected) in [
        ("hf:o/r-GGUF", Some(&new)),
        ("hf:o/r-GGUF:q4_k_m", Some(&new)),
        ("hf:o/r-GGUF:r-Q4_K_M.gguf@main", Some(&new)),
        (&*format!("hf:o/r-GGUF:Q4_K_M@{COMMIT}"), Some(&new)),
        (&*format!("hf:o/r-GGUF@{other}"), Some(&old)),
        ("hf:o/r-GGUF@pr/1", Some(&old)),
        ("hf:o/r-GGUF:Q8_0", None),
        ("hf:o/r-GGUF:Q4_K_M@v1", None),
        ("hf:o/other:Q4_K_M", None),
    ] {
        assert_eq!(fixture.find(name).as_ref(), expected, "{name}");
    }
    let file = |commit: &str| Location::Hub {
        repo: "o/r-GGUF".to_owned(),
        commit: commit.to_owned(),
        path: "r-Q4_K_M.gguf".to_owned(),
    };
    assert_eq!(fixture.caches.find_file(&file(COMMIT)), Some(new));
    assert_eq!(fixture.caches.find_file(&file(&other)), None);
    // The same file, by a way out of its folder and back.
    assert_eq!(
        fixture
            .caches
            .find_file(&file(&format!("{COMMIT}/../{COMMIT}"))),
        None
    );
    let all = fixture.caches.list();
    let pinned = format!("hf:o/r-GGUF:Q8_0@{other}");
    assert_eq!(references(&all), ["hf:o/r-GGUF:Q4_K_M", &pinned]);
    assert!(
        all.iter()
            .all(|kept| kept.bytes > 0 && fixture.find(&kept.reference) == Some(kept.path.clone()))
    );
    assert_eq!(fixture.caches.of_repository("o/r-GGUF").len(), 2);
    assert_eq!(fixture.caches.of_repository("o/r").len(), 0);
}

#[test]
fn what_is_unfinished_is_not_taken() {
    let fixture = Fixture::new();
    let repo = "hf/models--o--r";
    fixture.write(&format!("{repo}/refs/main"), COMMIT.as_bytes());
    fixture.write(&format!("{repo}/blobs/abc.incomplete"), b"GGUF");
    let link = fixture.snapshot("o/r", COMMIT, "r-Q4_0.gguf");
    assert_eq!(fixture.find("hf:o/r"), Some(link));
    // A link whose blob is still being fetched; a part of several; a file that ends too early.
    fs::remove_file(fixture.folder.path().join(repo).join("blobs/r-Q4_0.gguf")).unwrap();
    assert_eq!(fixture.find("hf:o/r"), None);
    fixture.snapshot("o/r", COMMIT, "r-Q8_0-00001-of-00002.gguf");
    assert_eq!(fixture.find("hf:o/r:Q8_0"), None);
    let whole = TinyModel::llama(2).to_bytes();
    fixture.write("lm/o/r/r-Q5_0.gguf", &whole[..whole.len() - 100]);
    fixture.write("lm/o/r/downloading_r-Q6_K.gguf.part", &whole);
    for name in ["hf:o/r:Q5_0", "hf:o/r:Q6_K"] {
        assert_eq!(fixture.find(name), None, "{name}");
    }
    assert_eq!(references(&fixture.caches.list()), ["hf:o/r:Q5_0"]);
}

#[test]
fn lm_studio_by_owner_repository_and_file() {
    let fixture = Fixture::new();
    let path = fixture.model("lm/o/r/sub/r-Q4_K_M.gguf");
    fixture.model("lm/o/r/mmproj-F16.gguf");
    assert_eq!(fixture.find("hf:o/r:Q4_K_M"), Some(path.clone()));
    assert_eq!(fixture.find("hf:o/r"), Some(path));
    // Of which revision it is, nobody knows.
    assert_eq!(fixture.find("hf:o/r:Q4_K_M@main"), None);
    assert_eq!(references(&fixture.caches.list()), ["hf:o/r:Q4_K_M"]);
}

#[test]
fn ollama_by_name_and_tag() {
    let fixture = Fixture::new();
    let bytes = TinyModel::llama(2).to_bytes();
    let hash = "a".repeat(64);
    let blob = fixture.model(&format!("ollama/blobs/sha256-{hash}"));
    fixture.manifest(
        "registry.ollama.ai/library/llama3.2/latest",
        &hash,
        bytes.len(),
    );
    fixture.manifest("registry.ollama.ai/library/llama3.2/3b", &hash, bytes.len());
    fixture.manifest("registry.ollama.ai/me/own/v1", &hash, bytes.len());
    fixture.manifest("hf.co/o/r/Q4_K_M", &hash, bytes.len());
    // One that is not complete, and one whose weights are elsewhere.
    fixture.manifest(
        "registry.ollama.ai/library/big/latest",
        &hash,
        bytes.len() + 1,
    );
    fixture.manifest("registry.ollama.ai/library/gone/latest", &"b".repeat(64), 1);
    fixture.manifest(
        "registry.ollama.ai/library/evil/latest",
        "../../../etc/passwd",
        1,
    );
    let names = [
        "ollama:hf.co/o/r:Q4_K_M",
        "ollama:llama3.2:3b",
        "ollama:llama3.2",
        "ollama:me/own:v1",
    ];
    assert_eq!(references(&fixture.caches.list()), names);
    for name in names {
        assert_eq!(fixture.find(name).as_ref(), Some(&blob), "{name}");
    }
    for name in [
        "ollama:big",
        "ollama:llama3.2:1b",
        "ollama:evil",
        "ollama:own:v1",
    ] {
        let error = fixture
            .caches
            .find(&name.parse().unwrap())
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            format!("{name} is not here; Ollama has {}", names.join(", "))
        );
    }
    let error = Caches::default()
        .find(&"ollama:big".parse().unwrap())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "ollama:big is not here: Ollama has no model, or keeps them where OLLAMA_MODELS does not say"
    );
}

#[test]
fn links_that_lead_in_circles_are_followed_only_so_far() {
    let fixture = Fixture::new();
    fixture.model("lm/o/r/r-Q4_0.gguf");
    let folder: &Path = &fixture.folder.path().join("lm/o/r");
    std::os::unix::fs::symlink(folder, folder.join("again")).unwrap();
    assert!(fixture.caches.list().len() <= MAX_DEPTH);
}
