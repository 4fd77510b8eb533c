//! From an offer to the files that a stage loads.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use brigade_gguf::{
    Claim, Layers, Lease, Source, Stored, WriteLock, claim_stage, pieces, pieces_in,
};
use brigade_hub::Resolved;

use super::output::{Output, Wanted};
use super::peer::Asking;
use super::places::{self, Places};
use super::supply::Supplier;
use super::{Delivery, Fetching, Offer, deliver};
use crate::NodeError;

/// Requests to a server at the same time.
const REQUESTS: usize = 4;

/// A model, or a part of it, that is here and stays as long as this lives.
#[derive(Debug)]
pub(crate) struct Brought {
    /// What a node process is given: the model's file, or its header.
    pub(crate) path: PathBuf,
    /// Of what it loads, and of that path.
    pub(crate) leases: [Lease; 2],
}

/// A node that has pieces: its name, whether it is the coordinator, a link, and which.
pub(crate) type HasPieces = (String, bool, Asking, Vec<(u32, u32)>);

impl Delivery {
    /// The headers of a model, from the cache or from the coordinator.
    pub(crate) fn headers(
        &self,
        offer: &Offer,
        coordinator: &mut Asking,
    ) -> Result<Source, NodeError> {
        let names = &offer.names;
        let known = names
            .first()
            .filter(|_| names.iter().all(|name| super::is_file_name(name)));
        let first = known.ok_or_else(|| NodeError::Delivery("a model without a name".into()))?;
        let hollow = Places::of(&self.folder(offer)).hollow.join(first);
        if super::described(&self.folder(offer)).as_ref() == Some(offer)
            && let Ok(source) = Source::open(&hollow)
        {
            return Ok(source);
        }
        let mut headers = Vec::new();
        for part in 0..offer.names.len() as u32 {
            let header = coordinator.header(part);
            headers.push(header.map_err(|error| {
                NodeError::Delivery(format!("the coordinator does not give the header: {error}"))
            })?);
        }
        self.make(offer, &headers)
    }

    /// Gets a stage's part of a model from wherever it can be had. `nodes` is asked only where
    /// something is missing.
    pub(crate) fn bring(
        &self,
        offer: &Offer,
        source: &Source,
        layers: Layers,
        authority: Option<Asking>,
        nodes: impl FnOnce() -> Vec<HasPieces>,
        progress: impl FnMut(Fetching) -> Result<(), NodeError>,
    ) -> Result<Brought, NodeError> {
        let folder = self.folder(offer);
        if layers.is_whole(source.header().block_count()?) {
            return self.bring_whole(offer, source, &folder, authority, nodes, progress);
        }
        let header = source.lease()?;
        let brought = |stage: Lease| Brought {
            path: source.path().to_owned(),
            leases: [stage, header],
        };
        let stage = match claim_stage(source, layers, &Places::of(&folder).stages)? {
            Claim::Ready(files) => return Ok(brought(files.lease)),
            Claim::Unfilled(stage) => stage,
        };
        let pieces = pieces(source.model());
        let (mut wanted, mut sizes) = (Vec::new(), Vec::new());
        for (file, layout) in stage.layouts().enumerate() {
            sizes.push(layout.len());
            for (number, position) in pieces_in(layout, &pieces)? {
                wanted.push(Wanted {
                    number,
                    piece: pieces[number as usize],
                    file,
                    position,
                });
            }
        }
        let output = self.open(&stage.folder(), &sizes)?;
        let suppliers = self.suppliers(offer, nodes());
        let paths = deliver(output, &wanted, authority, suppliers, progress)?;
        Ok(brought(stage.finish(source, &paths)?.lease))
    }

    fn bring_whole(
        &self,
        offer: &Offer,
        source: &Source,
        folder: &Path,
        authority: Option<Asking>,
        nodes: impl FnOnce() -> Vec<HasPieces>,
        progress: impl FnMut(Fetching) -> Result<(), NodeError>,
    ) -> Result<Brought, NodeError> {
        let Places { whole, begun, .. } = Places::of(folder);
        let paths: Vec<PathBuf> = offer.names.iter().map(|name| whole.join(name)).collect();
        let first = paths.first().cloned();
        let first = first.ok_or_else(|| NodeError::Delivery("a model without a name".into()))?;
        let header = source.lease()?;
        let brought = || {
            let lease = Lease::of(paths.iter().map(PathBuf::as_path))?;
            Ok(Brought {
                path: first.clone(),
                leases: [lease, header],
            })
        };
        let _lock = WriteLock::acquire(folder, places::WHOLE_LOCK)?;
        let identity = source.model().identity();
        if Source::open(&first).is_ok_and(|found| found.model().identity() == identity) {
            return brought();
        }
        let sizes: Vec<u64> = source.files().iter().map(|file| file.stamp.bytes).collect();
        let output = self.open(&begun, &sizes)?;
        let wanted: Vec<Wanted> = (0..)
            .zip(pieces(source.model()))
            .map(|(number, piece)| Wanted {
                number,
                piece,
                file: piece.part,
                position: piece.offset,
            })
            .collect();
        let suppliers = self.suppliers(offer, nodes());
        let filled = deliver(output, &wanted, authority, suppliers, progress)?;
        let adopt = || {
            fs::create_dir_all(&whole)?;
            // The first part last: where it is, the others are.
            for (index, (from, to)) in filled.iter().zip(&paths).enumerate().rev() {
                let header = source.model().parts()[index].data_offset();
                copy_start(&source.files()[index].path, from, header)?;
                fs::rename(from, to)?;
            }
            fs::remove_dir_all(&begun)
        };
        adopt().map_err(|error| NodeError::File {
            path: whole.clone(),
            error,
        })?;
        brought()
    }

    /// Opens files to be filled, for which there must be room.
    fn open(&self, folder: &Path, sizes: &[u64]) -> Result<Output, NodeError> {
        let begun = Stored {
            lock: None,
            paths: vec![folder.to_owned()],
        };
        let wanted: u64 = sizes.iter().sum();
        self.cache()
            .make_room(wanted.saturating_sub(begun.full_bytes()))?;
        Output::open(folder, sizes).map_err(|error| NodeError::File {
            path: folder.to_owned(),
            error,
        })
    }

    fn suppliers(&self, offer: &Offer, nodes: Vec<HasPieces>) -> Vec<Supplier> {
        let mut suppliers: Vec<Supplier> = nodes
            .into_iter()
            .map(|(name, is_coordinator, asking, ranges)| Supplier::Node {
                name,
                asking,
                pieces: ranges
                    .into_iter()
                    .flat_map(|(start, end)| start..end)
                    .collect(),
                is_coordinator,
            })
            .collect();
        if !offer.remote.is_empty() {
            suppliers.extend((0..REQUESTS).map(|_| Supplier::Server {
                client: Box::new(self.client.clone()),
                files: offer.remote.clone(),
                readers: HashMap::new(),
            }));
        }
        suppliers
    }

    /// Fetches a whole model from its servers, for a machine that is alone.
    pub(crate) fn fetch_whole(
        &self,
        resolved: &Resolved,
        progress: impl FnMut(Fetching) -> Result<(), NodeError>,
    ) -> Result<Source, NodeError> {
        let source = self.keep(resolved)?;
        let offer = self.offer(&source);
        let folder = self.folder(&offer);
        let brought = self.bring_whole(&offer, &source, &folder, None, Vec::new, progress)?;
        Ok(Source::open(&brought.path)?)
    }
}

/// Copies the first bytes of a file over those of another, and sees to it that all are kept.
fn copy_start(from: &Path, to: &Path, bytes: u64) -> std::io::Result<()> {
    use std::io::Read as _;
    let mut to = fs::File::options().write(true).open(to)?;
    std::io::copy(&mut fs::File::open(from)?.take(bytes), &mut to)?;
    to.sync_all()
}
