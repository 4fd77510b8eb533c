use proptest::prelude::*;

use super::*;
use crate::placement::fixtures::{mac, pool, quad};

fn sum(items: &[Item]) -> u64 {
    items.iter().map(|item| item.bytes).sum()
}

#[test]
fn four_minis_of_64_gib_plan_with_181_of_207_of_256() {
    let cluster = quad();
    assert_eq!(cluster.total_bytes(), 256 << 30);
    let effective = of_cluster(&cluster, None);
    assert_eq!(effective.limit_bytes, 4 * 53_084 * (1 << 20));
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    assert!((gib(effective.limit_bytes) - 207.4).abs() < 0.1);
    assert!((gib(effective.effective_bytes) - 181.4).abs() < 0.1);
    let names: Vec<&str> = effective.items.iter().map(|item| &*item.item).collect();
    assert_eq!(
        names,
        ["daemon", "transport buffers", "unmeasured cluster cost"]
    );
}

#[test]
fn a_node_alone_gives_up_its_daemon_only() {
    let alone = of_machine(&mac(64), 1, None);
    assert_eq!(alone[0].items.len(), 1);
    assert_eq!(
        alone[0].limit_bytes - alone[0].effective_bytes,
        DAEMON_BYTES
    );
}

#[test]
fn a_gpu_holds_no_daemon() {
    let gpu = pool(PoolKind::Vram, 24, 900.0);
    assert_eq!(of_pool(&gpu, 1, None).items, []);
    let names = of_pool(&gpu, 2, None).items;
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].item, "unmeasured cluster cost");
}

#[test]
fn a_measurement_takes_the_place_of_what_is_unmeasured() {
    let machine = mac(64);
    let measured = of_machine(&machine, 4, Some(0.04));
    let assumed = of_machine(&machine, 4, None);
    assert!(measured[0].effective_bytes > assumed[0].effective_bytes);
    assert!(
        measured[0]
            .items
            .iter()
            .any(|item| item.item == "measured cluster cost")
    );
}

proptest! {
    #[test]
    fn items_add_up(limit in any::<u64>(), nodes in 1_usize..70, share in proptest::option::of(-1.0..2.0_f64)) {
        let mut one = pool(PoolKind::Unified, 64, 273.0);
        one.limit_bytes = limit;
        let effective = of_pool(&one, nodes, share);
        prop_assert_eq!(sum(&effective.items), effective.limit_bytes - effective.effective_bytes);
    }

    #[test]
    fn a_higher_limit_never_leaves_less(limit in 0..u64::MAX / 2, more in 0_u64..1 << 40, nodes in 1_usize..5) {
        let mut one = pool(PoolKind::Unified, 64, 273.0);
        one.limit_bytes = limit;
        let before = of_pool(&one, nodes, None).effective_bytes;
        one.limit_bytes = limit + more;
        prop_assert!(of_pool(&one, nodes, None).effective_bytes >= before);
    }
}
