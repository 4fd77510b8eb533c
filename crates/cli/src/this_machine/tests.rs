use super::devices::tests::device;
use super::*;

const GB: u64 = 1 << 30;

fn seen(facts: &Facts) -> (Machine, Vec<String>) {
    let read = Reading {
        threads: 8,
        gb_s: 40.0,
    };
    let facts = Facts {
        read: Some(read),
        ..facts.clone()
    };
    machine(&facts, &Catalog::embedded().unwrap())
}

fn gpu(name: &str, gib: u64) -> Gpu {
    Gpu {
        name: name.into(),
        memory_bytes: Some(gib * GB),
    }
}

#[test]
fn a_mac() {
    let mut facts = Facts {
        cpu: "Apple M4 Pro".into(),
        cores: 14,
        memory_bytes: 64 * GB,
        apple_gpu_cores: Some(20),
        ..Facts::default()
    };
    let catalog = Catalog::embedded().unwrap();
    let (machine, notes) = machine(&facts, &catalog);
    let sold = &catalog.machine("mac-mini-m4-pro-64gb").unwrap().machine;
    assert_eq!(machine.pools, sold.pools);
    assert!(notes.is_empty(), "{notes:?}");
    facts.wired_limit_mib = Some(60_000);
    let (raised, _) = super::machine(&facts, &catalog);
    assert_eq!(raised.pools[0].limit_bytes, 60_000 << 20);
}

#[test]
fn a_pc_with_known_cards() {
    let facts = Facts {
        cpu: "AMD Ryzen 9 9950X 16-Core Processor".into(),
        cores: 16,
        memory_bytes: 64 * GB,
        available_bytes: Some(60 * GB),
        gpus: vec![gpu("NVIDIA GeForce RTX 3090", 24); 2],
        ..Facts::default()
    };
    let (machine, notes) = seen(&facts);
    let devices: Vec<&str> = machine
        .pools
        .iter()
        .map(|pool| pool.device.as_str())
        .collect();
    assert_eq!(devices, ["rtx-3090", "rtx-3090", "cpu"]);
    assert_eq!(machine.pools[0].bandwidth_gb_s, Some(936.0));
    let ram = &machine.pools[2];
    assert_eq!((ram.kind, ram.bandwidth_gb_s), (PoolKind::Ram, Some(40.0)));
    assert!(ram.limit_bytes < 60 * GB && ram.limit_bytes > 50 * GB);
    assert!(ram.limit_reason.starts_with("64.4 GB are free now; "));
    assert_eq!(notes, ["8 threads read memory at 40.0 GB/s, measured now"]);
}

#[test]
fn what_the_catalog_does_not_have() {
    let facts = Facts {
        cpu: "Some CPU".into(),
        cores: 8,
        memory_bytes: 16 * GB,
        gpus: vec![gpu("NVIDIA GeForce RTX 9990 Ti", 48)],
        ..Facts::default()
    };
    let (machine, notes) = seen(&facts);
    let card = &machine.pools[0];
    assert_eq!((card.memory_bytes, card.bandwidth_gb_s), (48 * GB, None));
    assert!(
        notes[0].contains("no 'NVIDIA GeForce RTX 9990 Ti'"),
        "{notes:?}"
    );
}

#[test]
fn what_llama_cpp_finds_decides_over_what_drivers_tell() {
    let catalog = Catalog::embedded().unwrap();
    let cpu = || device("CPU", "AMD Ryzen 9", DeviceKind::Cpu, (64_000, 60_000));
    let card = |name: &str, free_mib| {
        let memory = (24_135, free_mib);
        device(name, "NVIDIA GeForce RTX 3090", DeviceKind::Gpu, memory)
    };
    let mut facts = Facts {
        cpu: "AMD Ryzen 9 9950X 16-Core Processor".into(),
        cores: 16,
        memory_bytes: 64 * GB,
        available_bytes: Some(60 * GB),
        gpus: vec![gpu("NVIDIA GeForce RTX 3090", 24); 2],
        ..Facts::default()
    };
    let pools = |facts: &Facts| machine(facts, &catalog).0.pools;
    // A build for the processor alone.
    facts.devices = vec![cpu()];
    devices::mark(&mut facts.devices, None);
    assert_eq!(pools(&facts).len(), 1);
    assert_eq!(pools(&facts)[0].kind, PoolKind::Ram);
    // One of two cards is somebody else's for the most part.
    facts.devices = vec![card("CUDA0", 24_000), card("CUDA1", 3_000), cpu()];
    devices::mark(&mut facts.devices, None);
    let all = pools(&facts);
    let names: Vec<_> = all.iter().map(|pool| pool.device.as_str()).collect();
    assert_eq!(names, ["rtx-3090", "rtx-3090", "cpu"]);
    assert!(all[0].limit_bytes > 23 * GB);
    assert_eq!(all[1].limit_bytes, 3_000 << 20);
    assert!(
        all[1]
            .limit_reason
            .starts_with("3.1 GB of 25.8 GB are free now")
    );
    // Only one was chosen.
    devices::mark(&mut facts.devices, Some(&["CUDA1".to_owned()]));
    let chosen = pools(&facts);
    assert_eq!((chosen.len(), chosen[0].limit_bytes), (2, 3_000 << 20));
}

#[test]
fn a_mac_as_metal_tells() {
    let metal = device("MTL0", "Apple M4 Pro", DeviceKind::Gpu, (53_084, 53_000));
    let mut facts = Facts {
        cpu: "Apple M4 Pro".into(),
        cores: 14,
        memory_bytes: 64 * GB,
        apple_gpu_cores: Some(20),
        devices: vec![
            metal,
            device("CPU", "Apple M4 Pro", DeviceKind::Cpu, (65_536, 0)),
        ],
        ..Facts::default()
    };
    devices::mark(&mut facts.devices, None);
    let catalog = Catalog::embedded().unwrap();
    let (with_gpu, notes) = machine(&facts, &catalog);
    let [pool] = &with_gpu.pools[..] else {
        panic!("{with_gpu:?}");
    };
    assert_eq!(
        (pool.kind, pool.device.as_str()),
        (PoolKind::Unified, "m4-pro-20")
    );
    assert_eq!(pool.limit_bytes, 53_084 << 20);
    assert!(pool.limit_reason.starts_with("Metal's") && notes.is_empty());
    // On the processor alone no Metal limit counts, and no GPU's speed.
    devices::mark(&mut facts.devices, Some(&["CPU".to_owned()]));
    let (without, _) = machine(&facts, &catalog);
    assert_eq!(
        (without.pools.len(), without.pools[0].bandwidth_gb_s),
        (1, None)
    );
    assert!(!without.pools[0].limit_reason.starts_with("Metal's"));
}

#[test]
fn one_memory_is_one_pool_whatever_the_backend_calls_its_gpu() {
    let catalog = Catalog::embedded().unwrap();
    let seen = |cpu: &str, gpu: Device| {
        let mut facts = Facts {
            cpu: cpu.into(),
            memory_bytes: 120 * GB,
            available_bytes: Some(110 * GB),
            devices: vec![gpu],
            ..Facts::default()
        };
        devices::mark(&mut facts.devices, None);
        let (machine, _) = machine(&facts, &catalog);
        let [pool] = &machine.pools[..] else {
            panic!("{machine:?}");
        };
        assert_eq!(pool.kind, PoolKind::Unified);
        (pool.device.clone(), pool.limit_bytes, pool.bandwidth_gb_s)
    };
    let spark = device("CUDA0", "NVIDIA GB10", DeviceKind::Gpu, (119_000, 100_000));
    assert_eq!(seen("CPU", spark).0, "gb10");
    let kind = DeviceKind::IntegratedGpu;
    let reach = (48_000, 40_000);
    let graphics = device("Vulkan0", "Intel(R) Graphics (ADL GT2)", kind, reach);
    let (id, limit, bandwidth) = seen("Intel Core i7", graphics);
    assert_eq!(
        (id.as_str(), limit, bandwidth),
        ("unknown-gpu", 48_000 << 20, None)
    );
}

#[test]
fn chips_with_one_memory() {
    let spark = Facts {
        cpu: "CPU".into(),
        cores: 20,
        memory_bytes: 119 * GB,
        gpus: vec![Gpu {
            name: "NVIDIA GB10".into(),
            memory_bytes: None,
        }],
        ..Facts::default()
    };
    let halo = Facts {
        cpu: "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S".into(),
        memory_bytes: 124 * GB,
        ..Facts::default()
    };
    for (facts, device) in [(spark, "gb10"), (halo, "strix-halo-8060s")] {
        let (machine, _) = seen(&facts);
        assert_eq!(machine.pools.len(), 1);
        assert_eq!(machine.pools[0].device, device);
        assert_eq!(machine.pools[0].kind, PoolKind::Unified);
    }
}
