//! Whether the tensors are of as many blocks as the file says it has.

use std::collections::BTreeSet;

use super::keys::Keys;
use crate::FitError;

/// Fails where a layer has no tensors, or a tensor belongs to no layer: llama.cpp refuses such a
/// file, and what it takes would be that of another model.
pub(super) fn check(gguf: &brigade_gguf::Model, keys: &Keys<'_>) -> Result<(), FitError> {
    let count = keys.blocks();
    let mut blocks: BTreeSet<usize> = BTreeSet::new();
    let mut predicting: BTreeSet<usize> = BTreeSet::new();
    for tensor in gguf.tensors() {
        let name = tensor.info.name();
        let Some((index, rest)) = tensor.info.block() else {
            if name.starts_with("blk.") {
                return Err(keys.refuse(format!("the tensor {name} is of no layer")));
            }
            continue;
        };
        let index = index as usize;
        if index >= count {
            return Err(differs(
                keys,
                index.saturating_add(1),
                &format!("there is {name}"),
            ));
        }
        blocks.insert(index);
        if rest.starts_with("nextn.") {
            predicting.insert(index);
        }
    }
    let is_empty = empty_layers(keys);
    let lacking = (0..keys.layers()).find(|layer| !blocks.contains(layer) && !is_empty(*layer));
    if let Some(layer) = lacking {
        return Err(differs(
            keys,
            blocks.len(),
            &format!("none is of blk.{layer}"),
        ));
    }
    // A file may do without the blocks that predict several tokens.
    let ordinary =
        (keys.layers()..count).find(|index| blocks.contains(index) && !predicting.contains(index));
    if let Some(index) = ordinary {
        return Err(keys.refuse(format!(
            "{} is {} of {count} blocks, but blk.{index} has no nextn tensor",
            keys.whole("nextn_predict_layers"),
            count - keys.layers(),
        )));
    }
    Ok(())
}

fn differs(keys: &Keys<'_>, blocks: usize, which: &str) -> FitError {
    keys.refuse(format!(
        "{} is {}, but the tensors are of {blocks} blocks: {which}",
        keys.whole("block_count"),
        keys.blocks()
    ))
}

/// Layers that neither attend nor have a feed-forward part, as pruning leaves them in `deci`.
fn empty_layers(keys: &Keys<'_>) -> impl Fn(usize) -> bool {
    let pruned = keys.architecture() == "deci";
    let [heads, widths] = ["attention.head_count", "feed_forward_length"]
        .map(|key| keys.per_layer(key).filter(|_| pruned).unwrap_or_default());
    move |layer| heads.get(layer) == Some(&0) && widths.get(layer) == Some(&0)
}
