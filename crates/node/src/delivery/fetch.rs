//! Filling files with pieces from everybody who has them, at the same time.
//!
//! Suppliers take from one queue, so that the faster one brings more. What a slow one has kept
//! for long is fetched a second time by another that has nothing else to do; the first copy
//! counts. A supplier that fails again and again is given up, and one whose bytes are not the
//! model's at once.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::ledger::PieceHash;
use super::output::{Output, Wanted};
use super::peer::{Asking, HASHES_AT_ONCE};
use super::supply::{Batch, Supplier, batches};
use crate::NodeError;

/// How often a supplier may fail before it is given up, if the failure may pass.
const FAILURES: u32 = 4;

/// Before a supplier that failed is asked again, the first time.
const AGAIN: Duration = Duration::from_millis(200);

/// After this time a batch is fetched by another supplier too.
const SLOW: Duration = Duration::from_secs(1);

/// Between two looks at whether something changed.
const LOOK: Duration = Duration::from_millis(100);

/// Over how long the bandwidth is measured.
const WINDOW: Duration = Duration::from_secs(5);

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetching {
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) bytes_per_second: u64,
}

#[derive(Debug)]
struct Shared {
    output: Output,
    /// Who knows what pieces must be.
    authority: Option<Mutex<Asking>>,
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    waiting: VecDeque<(u32, Arc<Batch>)>,
    flying: HashMap<u32, Flight>,
    done_bytes: u64,
    suppliers: u32,
    /// Why suppliers were given up.
    complaints: Vec<String>,
    /// What ends it all.
    failure: Option<String>,
    over: bool,
}

#[derive(Debug)]
struct Flight {
    batch: Arc<Batch>,
    since: Instant,
    /// The names of those who fetch it: a slow one is no help to itself.
    by: Vec<String>,
    /// Somebody has it and is writing it.
    landed: bool,
}

/// Fetches what of the wanted pieces is not there yet, and returns the files. Without an authority
/// the first hash of a piece is the one that counts. `progress` is told ten times a second.
pub(super) fn deliver(
    output: Output,
    wanted: &[Wanted],
    authority: Option<Asking>,
    suppliers: Vec<Supplier>,
    mut progress: impl FnMut(Fetching) -> Result<(), NodeError>,
) -> Result<Vec<PathBuf>, NodeError> {
    let paths = output.paths.clone();
    let total_bytes = wanted.iter().map(|one| one.piece.bytes).sum();
    let mut told = Instant::now();
    let present = output.present(wanted, |done_bytes| {
        if told.elapsed() < LOOK {
            return Ok(());
        }
        told = Instant::now();
        progress(Fetching {
            done_bytes,
            total_bytes,
            bytes_per_second: 0,
        })
    })?;
    let missing: Vec<Wanted> = wanted
        .iter()
        .filter(|one| !present.contains_key(&one.number))
        .copied()
        .collect();
    let missing_bytes: u64 = missing.iter().map(|one| one.piece.bytes).sum();
    let waiting = (0..).zip(batches(&missing, &suppliers).into_iter().map(Arc::new));
    let shared = Arc::new(Shared {
        output,
        authority: authority.map(Mutex::new),
        work: Mutex::new(Work {
            waiting: waiting.collect(),
            done_bytes: total_bytes - missing_bytes,
            suppliers: suppliers.len() as u32,
            ..Work::default()
        }),
        changed: Condvar::new(),
    });
    for supplier in suppliers {
        let shared = Arc::clone(&shared);
        thread::spawn(move || shared.supply(supplier));
    }
    let result = shared.watch(total_bytes, &mut progress);
    shared.finish();
    result?;
    if let Some(mut authority) = shared.authority() {
        let told = authority.learn(&shared.output.hashes());
        told.map_err(|error| NodeError::Delivery(format!("the coordinator is gone: {error}")))?;
    }
    Ok(paths)
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn authority(&self) -> Option<MutexGuard<'_, Asking>> {
        let authority = self.authority.as_ref()?;
        Some(authority.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until all is there or cannot be had.
    fn watch(
        &self,
        total_bytes: u64,
        progress: &mut impl FnMut(Fetching) -> Result<(), NodeError>,
    ) -> Result<(), NodeError> {
        let mut seen: VecDeque<(Instant, u64)> = VecDeque::new();
        loop {
            let (done_bytes, outcome) = {
                let work = self.work();
                let waited = self.changed.wait_timeout(work, LOOK);
                let (work, _) = waited.unwrap_or_else(PoisonError::into_inner);
                let outcome = if let Some(failure) = &work.failure {
                    Some(Err(failure.clone()))
                } else if work.done_bytes == total_bytes {
                    Some(Ok(()))
                } else if work.suppliers == 0 {
                    Some(Err(work.complaints.join("; ")))
                } else {
                    None
                };
                (work.done_bytes, outcome)
            };
            let now = Instant::now();
            seen.push_back((now, done_bytes));
            while seen.len() > 1 && now - seen[0].0 > WINDOW {
                seen.pop_front();
            }
            let (since, before) = seen[0];
            let seconds = (now - since).as_secs_f64();
            let bytes_per_second = if seconds > 0.0 {
                ((done_bytes - before) as f64 / seconds) as u64
            } else {
                0
            };
            progress(Fetching {
                done_bytes,
                total_bytes,
                bytes_per_second,
            })?;
            match outcome {
                Some(Ok(())) => return Ok(()),
                Some(Err(reason)) => {
                    return Err(NodeError::Delivery(format!(
                        "{done_bytes} of {total_bytes} bytes are here and stay, the rest cannot be had: {reason}"
                    )));
                }
                None => {}
            }
        }
    }

    /// Lets no supplier begin anything more, and waits for what is being written: whoever goes on
    /// from here finds the files at rest.
    fn finish(&self) {
        let mut work = self.work();
        work.over = true;
        self.changed.notify_all();
        while work.flying.values().any(|flight| flight.landed) {
            let waited = self.changed.wait_timeout(work, LOOK);
            work = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One supplier's thread.
    fn supply(&self, mut supplier: Supplier) {
        let mut failures = 0;
        let name = supplier.name();
        let complaint = loop {
            let Some((id, batch)) = self.take(&supplier, &name) else {
                break None;
            };
            let going = || {
                let work = self.work();
                !work.over && work.flying.get(&id).is_some_and(|flight| !flight.landed)
            };
            let fetched = supplier.fetch(&batch, &going);
            let landed = fetched.and_then(|bytes| self.land(id, &batch, &bytes, &supplier));
            match landed {
                Ok(()) => failures = 0,
                Err(_) if !going() && self.is_done(id) => {}
                Err(error) => {
                    self.put_back(id, &name);
                    failures += 1;
                    if !error.retry || failures >= FAILURES {
                        break Some(error.to_string());
                    }
                    thread::sleep(AGAIN * 2_u32.pow(failures - 1));
                }
            }
        };
        let mut work = self.work();
        work.suppliers -= 1;
        if let Some(complaint) = complaint {
            let complaint = format!("{name}: {complaint}");
            if !work.complaints.contains(&complaint) {
                tracing::warn!(reason = complaint, "a source of a model is given up");
                work.complaints.push(complaint);
            }
        }
        drop(work);
        self.changed.notify_all();
    }

    /// The next batch for a supplier: one that waits, or one that another is slow with. None when
    /// it has nothing of what is left.
    fn take(&self, supplier: &Supplier, name: &str) -> Option<(u32, Arc<Batch>)> {
        let mut work = self.work();
        loop {
            let waits = work
                .waiting
                .iter()
                .any(|(_, batch)| supplier.has_all(batch));
            let flies = || {
                work.flying
                    .values()
                    .any(|flight| supplier.has_all(&flight.batch))
            };
            if work.over || !(waits || flies()) {
                return None;
            }
            let found = work
                .waiting
                .iter()
                .position(|(_, batch)| supplier.has_all(batch));
            if let Some((id, batch)) = found.and_then(|index| work.waiting.remove(index)) {
                let flight = Flight {
                    batch: Arc::clone(&batch),
                    since: Instant::now(),
                    by: vec![name.to_owned()],
                    landed: false,
                };
                work.flying.insert(id, flight);
                return Some((id, batch));
            }
            let slow = work.flying.iter_mut().find(|(_, flight)| {
                !flight.landed
                    && flight.since.elapsed() > SLOW
                    && !flight.by.iter().any(|by| by == name)
                    && supplier.has_all(&flight.batch)
            });
            if let Some((&id, flight)) = slow {
                flight.by.push(name.to_owned());
                return Some((id, Arc::clone(&flight.batch)));
            }
            let waited = self.changed.wait_timeout(work, LOOK);
            work = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn is_done(&self, id: u32) -> bool {
        let work = self.work();
        work.over || work.flying.get(&id).is_none_or(|flight| flight.landed)
    }

    /// A supplier does not bring this batch.
    fn put_back(&self, id: u32, name: &str) {
        let mut work = self.work();
        let gone = work.flying.get_mut(&id).is_some_and(|flight| {
            flight.by.retain(|by| by != name);
            flight.by.is_empty()
        });
        if gone && let Some(flight) = work.flying.remove(&id) {
            work.waiting.push_front((id, flight.batch));
        }
        drop(work);
        self.changed.notify_all();
    }

    /// Judges what came, and writes it if it is the first.
    fn land(
        &self,
        id: u32,
        batch: &Batch,
        bytes: &[Vec<u8>],
        supplier: &Supplier,
    ) -> Result<(), brigade_hub::FetchError> {
        let hashes: Vec<PieceHash> = bytes
            .iter()
            .map(|bytes| *blake3::hash(bytes).as_bytes())
            .collect();
        if !supplier.is_authority() {
            self.judge(batch, &hashes)?;
        }
        {
            let mut work = self.work();
            let over = work.over;
            match work.flying.get_mut(&id) {
                Some(flight) if !flight.landed && !over => flight.landed = true,
                _ => return Ok(()),
            }
        }
        let mut written = Ok(());
        for ((one, bytes), hash) in batch.iter().zip(bytes).zip(&hashes) {
            written = written.and_then(|()| self.output.write(one, bytes, *hash));
        }
        let mut work = self.work();
        work.flying.remove(&id);
        match written {
            Ok(()) => work.done_bytes += batch.iter().map(|one| one.piece.bytes).sum::<u64>(),
            Err(error) => work.failure = Some(format!("they cannot be written: {error}")),
        }
        drop(work);
        self.changed.notify_all();
        Ok(())
    }

    /// Compares hashes with those that are known.
    fn judge(&self, batch: &Batch, hashes: &[PieceHash]) -> Result<(), brigade_hub::FetchError> {
        let numbers: Vec<u32> = batch.iter().map(|one| one.number).collect();
        for (numbers, hashes) in numbers
            .chunks(HASHES_AT_ONCE)
            .zip(hashes.chunks(HASHES_AT_ONCE))
        {
            let Some(mut authority) = self.authority() else {
                return Ok(());
            };
            let expected = authority.hashes(numbers).map_err(|error| {
                let mut work = self.work();
                work.failure = Some(format!("the coordinator does not answer: {error}"));
                brigade_hub::FetchError::lasting(error.to_string())
            })?;
            let wrong = expected
                .iter()
                .zip(hashes)
                .zip(numbers)
                .find(|((expected, hash), _)| expected.is_some_and(|expected| expected != **hash));
            if let Some((_, piece)) = wrong {
                return Err(brigade_hub::FetchError::lasting(format!(
                    "it sent bytes that are not the model's (piece {piece} has another hash)"
                )));
            }
        }
        Ok(())
    }
}
