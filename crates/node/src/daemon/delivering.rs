//! A daemon's side of deliveries: pieces for other nodes, and a stage's own.

use brigade_gguf::Lease;
use brigade_wire::frame::send_value;
use brigade_wire::{FrameError, NodeKey};

use super::message::{Answer, Opening};
use super::{Host, Shared};
use crate::NodeError;
use crate::delivery::peer::{self, Asking};
use crate::delivery::{Brought, Offer, Source};
use crate::link::Link;
use crate::worker::{NodeReport, Shard};

/// Connections to each node that has pieces: one is read from while the other is asked.
const LINKS: usize = 2;

/// Gives pieces to another node, until it has what it wants.
pub(super) fn serve(
    shared: &Shared,
    mut link: Link,
    asking: NodeKey,
    key: &str,
) -> Result<(), FrameError> {
    let socket = link.socket().try_clone()?;
    shared.lock().peer(asking).bind(&socket)?;
    socket.set_read_timeout(None)?;
    let holding = shared.delivery.holding(key);
    let ranges = holding.as_ref().map(crate::delivery::Holding::ranges);
    let told = send_value(&mut link, &Answer::Granted)
        .and_then(|()| send_value(&mut link, &ranges.unwrap_or_default()));
    let served = told.and_then(|()| match holding {
        Some(mut holding) => peer::serve(&mut link, &mut holding),
        None => Ok(()),
    });
    // What is bound stays open otherwise.
    let _ = socket.shutdown(std::net::Shutdown::Both);
    served
}

/// Sees to it that the model is where the order says, or that the stage's part of it is here, unless
/// nobody needs that any more. What is given back with the order keeps it here.
pub(super) fn bring(
    shared: &Shared,
    link: &mut Link,
    coordinator: NodeKey,
    mut order: Shard,
    is_over: &dyn Fn() -> bool,
) -> Result<(Shard, [Lease; 2]), NodeError> {
    let Some(offer) = order.delivery.take() else {
        return Ok((order, Default::default()));
    };
    let same = |source: &Source| source.model().identity().to_hex().as_str() == order.identity;
    // The file of that path, or one that another program has fetched.
    let caches = shared.delivery.client.caches();
    let kept = offer
        .remote
        .first()
        .and_then(|file| caches.find_file(&file.location));
    let there = [Some(order.path.clone()), kept].into_iter().flatten();
    let mut there = there.filter_map(|path| Source::open(&path).ok());
    if let Some(source) = there.find(|source| !source.is_hollow() && same(source)) {
        let lease = source.lease()?;
        source.path().clone_into(&mut order.path);
        shared.delivery.have(&offer.key, source);
        return Ok((order, [lease, Lease::default()]));
    }
    let (mut authority, _) = ask(shared, coordinator, &offer)?;
    let source = shared.delivery.headers(&offer, &mut authority)?;
    if !same(&source) {
        return Err(NodeError::AnotherModel(source.path().to_owned()));
    }
    let nodes = || {
        let mut nodes = Vec::new();
        for (key, name) in present(shared) {
            for _ in 0..LINKS {
                match ask(shared, key, &offer) {
                    Ok((asking, ranges)) if !ranges.is_empty() => {
                        nodes.push((name.clone(), key == coordinator, asking, ranges));
                    }
                    Ok(_) => break,
                    Err(error) => {
                        tracing::info!(node = name, %error, "has no pieces for us");
                        break;
                    }
                }
            }
        }
        nodes
    };
    let Brought { path, leases } = shared.delivery.bring(
        &offer,
        &source,
        order.layers,
        Some(authority),
        nodes,
        |state| {
            let report =
                NodeReport::Fetching(state.done_bytes, state.total_bytes, state.bytes_per_second);
            if is_over() || send_value(link, &report).is_err() {
                return Err(NodeError::BrokenOff);
            }
            Ok(())
        },
    )?;
    order.path = path;
    Ok((order, leases))
}

/// This node and those that are up: another stage's files may lie here.
fn present(shared: &Shared) -> Vec<(NodeKey, String)> {
    let own = shared.own().public();
    let state = shared.lock();
    let present = state.members.present();
    present
        .filter(|member| member.key == own || state.is_up(member.key, shared.now()))
        .map(|member| (member.key, member.name.clone()))
        .collect()
}

/// Asks a node for pieces of a model; it says which it has.
fn ask(
    shared: &Shared,
    node: NodeKey,
    offer: &Offer,
) -> Result<(Asking, Vec<(u32, u32)>), NodeError> {
    let member = shared.lock().members.get(node).cloned();
    let member = member.ok_or_else(|| NodeError::Delivery("an unknown node".to_owned()))?;
    let host = Host {
        name: member.name,
        key: node,
    };
    let failed = |error| NodeError::Peer {
        node: host.name.clone(),
        error,
    };
    let link = shared.ask(&host, &Opening::Pieces(offer.key.clone()))?;
    let mut asking = Asking::new(link).map_err(failed)?;
    let ranges = asking.ranges().map_err(failed)?;
    Ok((asking, ranges))
}
