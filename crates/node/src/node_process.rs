//! What a daemon, or a command, runs a stage by: the loop of `brigade node`. It cuts its stage file, runs
//! the stage in a child process and reports when that is gone.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use brigade_gguf::{Lease, Origin, Source, find_stage, prepare_stage, stage_files};

use crate::NodeError;
use crate::cache::Cache;
use crate::child::{self, ChildProcess, Reports};
use crate::listen::Listen;
use crate::worker::{
    NodeOrder, NodeReport, RpcOrder, RpcReport, Shard, StageOrder, StageReport, StageSource,
    threads_here,
};

/// Does what the parent orders, once, and reports until the child is gone.
pub fn run() {
    let orders = child::orders::<NodeOrder>();
    let Ok(order) = orders.recv() else { return };
    match obey(order) {
        Ok(mut running) => {
            // Nothing more is expected: this waits for the end of the child.
            while let Ok(Some(_)) = running.reports.read::<serde_json::Value>() {}
            let how = match running.process.gone() {
                NodeError::ChildGone { how, .. } => how,
                error => error.to_string(),
            };
            child::report(&NodeReport::Gone(how));
        }
        Err(error) => child::report(&NodeReport::Failed(error.to_string())),
    }
    // Lives until the parent lets go.
    let _ = orders.recv();
}

/// A child at work.
struct Running {
    process: ChildProcess,
    reports: Reports,
    /// Keeps its files in the cache.
    _lease: Lease,
}

fn obey(order: NodeOrder) -> Result<Running, NodeError> {
    match order {
        NodeOrder::Stage {
            shard,
            cache,
            listen,
        } => run_shard(&shard, &cache, listen),
        NodeOrder::Whole {
            path,
            run,
            rpc,
            guard,
        } => {
            let source = Source::open(&path)?;
            let lease = source.lease()?;
            let order = StageOrder {
                threads: run.threads_here(),
                model: run.model,
                files: StageSource::Whole(path),
                params: run.params,
                rpc,
                listen: Listen::LOOPBACK,
                guard,
            };
            let bytes = source.model().tensor_bytes();
            run_stage("the whole model's process", &order, bytes, lease)
        }
        NodeOrder::Rpc { threads } => {
            let name = "the RPC server";
            let order = RpcOrder {
                threads: threads_here(threads),
            };
            let (mut process, mut reports) = child::spawn("rpc-server", name)?;
            process.order(&order)?;
            match reports.read()? {
                Some(RpcReport::Ready(address)) => {
                    let pid = process.pid();
                    child::report(&NodeReport::Rpc { pid, address });
                    Ok(Running {
                        process,
                        reports,
                        _lease: Lease::default(),
                    })
                }
                Some(RpcReport::Failed(reason)) => Err(refused(name, reason)),
                None => Err(process.gone()),
            }
        }
    }
}

fn run_shard(shard: &Shard, cache: &Cache, listen: Listen) -> Result<Running, NodeError> {
    let source = Source::open(&shard.path)?;
    if source.model().identity().to_hex().as_str() != shard.identity {
        return Err(NodeError::AnotherModel(shard.path.clone()));
    }
    let layer_count = source.header().block_count()?;
    let mut last = Instant::now();
    let folder = stage_dir(&source, &shard.run.model, &cache.folder);
    let is_whole = shard.layers.is_whole(layer_count);
    if !is_whole && find_stage(&source, shard.layers, &folder).is_none() {
        let files = stage_files(&source, shard.layers)?;
        cache.make_room(files.iter().map(|(_, layout)| layout.len()).sum())?;
    }
    let files = prepare_stage(&source, shard.layers, &folder, |done, total| {
        if last.elapsed() > Duration::from_millis(200) {
            last = Instant::now();
            child::report(&NodeReport::Slicing(done, total));
        }
    })?;
    if files.origin == Origin::Written {
        // Others may have written at the same time.
        let settled = cache.make_room(0);
        settled
            .unwrap_or_else(|error| tracing::warn!(%error, "the cache has more than it may have"));
    }
    let name = format!("the stage of layers {}", shard.layers);
    let source = match files.embedding {
        Some(embedding) => StageSource::First {
            stage: files.model,
            embedding,
        },
        None if is_whole => StageSource::Whole(files.model),
        None if shard.layers.is_last(layer_count) => StageSource::Last(files.model),
        None => StageSource::Middle(files.model),
    };
    let order = StageOrder {
        model: shard.run.model.clone(),
        files: source,
        params: shard.run.params.clone(),
        threads: shard.run.threads_here(),
        rpc: Vec::new(),
        listen,
        guard: shard.guard.clone(),
    };
    run_stage(&name, &order, files.bytes.total(), files.lease)
}

/// A folder for this model's stage files, readable by name. It is another one for every state
/// of every file: a stage that is about to be loaded is never written again by somebody else.
pub(crate) fn stage_dir(source: &Source, name: &str, cache: &Path) -> PathBuf {
    // What was fetched lies with its headers.
    if source.is_hollow()
        && let Some(folder) = source.path().ancestors().nth(2)
    {
        return crate::delivery::places::Places::of(folder).stages;
    }
    let mut identity = blake3::Hasher::new();
    identity.update(source.model().identity().as_bytes());
    for file in source.files() {
        identity.update(file.path.as_os_str().as_encoded_bytes());
        identity.update(&file.stamp.bytes.to_le_bytes());
        identity.update(&file.stamp.modified_ns.to_le_bytes());
    }
    let identity = identity.finalize().to_hex();
    // File names may have 255 bytes; a character of UTF-8 takes up to 4. The name may come from
    // another node, and a slash in it would lead elsewhere.
    let name: String = name
        .chars()
        .map(|character| match character {
            '/' | '\\' => '_',
            other => other,
        })
        .take(40)
        .collect();
    let folder = format!("{name}-{}", &identity[..16]);
    cache.join(crate::cache::STAGES).join(folder)
}

fn run_stage(
    name: &str,
    order: &StageOrder,
    bytes: u64,
    lease: Lease,
) -> Result<Running, NodeError> {
    let (mut process, mut reports) = child::spawn("stage", name)?;
    process.order(order)?;
    match reports.read()? {
        Some(StageReport::Ready(ready)) => {
            child::report(&NodeReport::Stage {
                pid: process.pid(),
                bytes,
                ready,
            });
            Ok(Running {
                process,
                reports,
                _lease: lease,
            })
        }
        Some(StageReport::Failed(reason)) => Err(refused(name, reason)),
        None => match process.gone() {
            NodeError::ChildGone { name, how } => Err(NodeError::ChildGone {
                name,
                how: format!("{how} while it was loading"),
            }),
            error => Err(error),
        },
    }
}

fn refused(name: &str, reason: String) -> NodeError {
    NodeError::Refused {
        name: name.to_owned(),
        reason,
    }
}
