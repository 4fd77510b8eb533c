mod plans;

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::model::Format;

/// The line of the last measured row that these tests know; later ones may be of their settings.
const LAST_LINE: usize = 571;

fn catalog() -> &'static Catalog {
    static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
        let mut catalog = Catalog::embedded().expect("the embedded catalog is sound");
        catalog.measurements.retain(|row| row.line <= LAST_LINE);
        catalog
    });
    &CATALOG
}

fn pool(device: &str) -> Pool {
    let gib = (!device.starts_with("rtx")).then_some(64 << 30);
    catalog().pool(device, gib).unwrap()
}

fn setting<'a>(model: &'a str, quant: &str, pools: Vec<&'a Pool>, context: u32) -> Setting<'a> {
    let model = catalog().model(model).unwrap();
    Setting {
        model,
        quant: model.quants.iter().find(|own| own.name == quant).unwrap(),
        nodes: 1,
        pools,
        context,
    }
}

fn work(tokens: u32) -> Work {
    Work {
        rate: Rate::Decode,
        tokens,
        layers: 32,
        weight_bytes: 4_500_000_000,
        head_bytes: 400_000_000,
        kv_bytes: 500_000_000 * u64::from(tokens),
        flops: 16e9 * f64::from(tokens),
        attention_flops: 1e9 * f64::from(tokens),
        sampled: tokens,
        vocab: 128_000,
        handovers: 0,
        traits: Traits {
            quant: quants::QuantClass::Q4K,
            moe: false,
            recurrent: false,
            mix: calibration::Mix::of(&catalog().model("llama-2-7b").unwrap().quants[0]),
            width: 4096,
        },
    }
}

#[test]
fn a_row_of_exactly_the_setting_wins() {
    let speed = SpeedModel::new(catalog());
    let row = catalog().measurements.iter().find(|row| row.id == "m0035");
    let measured = row.unwrap().decode_tok_s.unwrap();
    let max = pool("m4-max-40");
    // Llama 2 7B in Q4_0, 128 tokens from an empty cache.
    let exact = setting("llama-2-7b", "Q4_0", vec![&max], 64);
    let found = speed.around(1.0, Rate::Decode, &exact);
    assert!((found.mid - measured).abs() < 1e-9, "{found:?}");
    assert_eq!(found.evidence, Evidence::Measured);
    let said = speed.basis(Rate::Decode, &exact).unwrap();
    assert_eq!(said, "Decode was measured in this setting: m0035.");
}

#[test]
fn rows_of_the_model_on_the_chip_correct_the_formula() {
    let speed = SpeedModel::new(catalog());
    let max = pool("m4-max-40");
    let near = setting("llama-2-7b", "Q4_0", vec![&max], 1024);
    let found = speed.around(60.0, Rate::Decode, &near);
    assert_eq!(found.evidence, Evidence::MeasuredNear);
    assert!((found.mid / 60.0).ln().abs() < 0.3, "{found:?}");
    let said = speed.basis(Rate::Decode, &near).unwrap();
    assert!(said.contains("m0035"), "{said}");
    let formula = setting("qwen2.5-72b", "Q4_K_M", vec![&max], 1024);
    let wider = speed.around(60.0, Rate::Decode, &formula);
    assert_eq!(wider.evidence, Evidence::Extrapolated);
    assert!(wider.high / wider.low > found.high / found.low);
    assert_eq!(speed.basis(Rate::Decode, &formula), None);
}

/// `DeepSeek` V3 was measured on eight Mac minis; a formula would give almost twice as much.
#[test]
fn a_measured_pipeline_corrects_the_formula() {
    let speed = SpeedModel::new(catalog());
    let pro = pool("m4-pro-20");
    let eight = Setting {
        nodes: 8,
        ..setting("deepseek-v3", "mlx-4bit", vec![&pro; 8], 8192)
    };
    let found = speed.around(9.4, Rate::Decode, &eight);
    assert!((4.0..8.0).contains(&found.mid), "{found:?}");
    assert_eq!(found.evidence, Evidence::Community);
    // Its context is not stated, so that the interval is no narrower than the formula's.
    let twice = speed.around(18.8, Rate::Decode, &eight);
    assert!((twice.mid / found.mid - 2.0).abs() < 1e-9 && found.high / found.low > 1.5);
    let said = speed.basis(Rate::Decode, &eight).unwrap();
    assert!(
        said.contains("8 such nodes") && said.contains("m0380"),
        "{said}"
    );
    let four = Setting {
        nodes: 4,
        pools: vec![&pro; 4],
        ..eight
    };
    assert_eq!(
        speed.around(9.4, Rate::Decode, &four).evidence,
        Evidence::Estimated
    );
}

#[test]
fn a_longer_context_has_a_wider_interval() {
    let speed = SpeedModel::new(catalog());
    let max = pool("m4-max-40");
    let width = |context| {
        let found = speed.around(
            60.0,
            Rate::Decode,
            &setting("llama-2-7b", "Q4_0", vec![&max], context),
        );
        found.high / found.low
    };
    assert!(width(16_384) > 1.2 * width(1024));
}

#[test]
fn what_is_less_known_has_a_wider_interval() {
    let speed = SpeedModel::new(catalog());
    let (known, other) = (pool("rtx-4090"), pool("rtx-4090"));
    let one = setting("qwen2.5-72b", "Q4_K_M", vec![&known], 8192);
    let width = |setting: &Setting| {
        let found = speed.around(20.0, Rate::Decode, setting);
        (found.evidence, found.high / found.low)
    };
    let (evidence, seen) = width(&one);
    assert_eq!(evidence, Evidence::Extrapolated);
    let mut strange = other.clone();
    strange.family = "a new kind".into();
    strange.device = "a-new-one".into();
    let (evidence, unseen) = width(&Setting {
        pools: vec![&strange],
        ..one.clone()
    });
    assert_eq!(evidence, Evidence::Estimated);
    assert!(unseen > seen);
    let (evidence, spread) = width(&Setting {
        pools: vec![&known, &other],
        nodes: 2,
        ..one
    });
    assert_eq!(evidence, Evidence::Estimated);
    assert!(spread > 1.0);
}

#[test]
fn a_missing_fact_is_named() {
    let speed = SpeedModel::new(catalog());
    let mut unknown = pool("rtx-4090");
    unknown.bandwidth_gb_s = None;
    let error = speed.step_s(&unknown, "llama.cpp", &work(1)).unwrap_err();
    assert!(error.to_string().contains("memory bandwidth"), "{error}");
    unknown.bandwidth_gb_s = Some(1000.0);
    unknown.fp16_tflops = None;
    let prompt = Work {
        rate: Rate::Prefill,
        ..work(512)
    };
    let error = speed.step_s(&unknown, "llama.cpp", &prompt).unwrap_err();
    assert!(error.to_string().contains("matrix throughput"), "{error}");
    assert!(speed.step_s(&unknown, "llama.cpp", &work(1)).is_ok());
}

/// A small model's head makes more bits of a quantization, which changes nothing in how it is read.
#[test]
fn quantizations_have_the_class_of_their_name() {
    use quants::QuantClass::{F16, Mlx4, MlxMxfp4, Mxfp4, Q4K, Q8};
    for model in &catalog().models {
        for quant in &model.quants {
            let known = quants::parse(&quant.name);
            assert!(known.is_some(), "{} of {}", quant.name, model.id);
        }
    }
    for (format, name, class) in [
        (Format::Gguf, "Q4_K_M", Q4K),
        (Format::Gguf, "Q8_0", Q8),
        (Format::Gguf, "MXFP4", Mxfp4),
        (Format::Gguf, "F16", F16),
        (Format::Mlx, "mlx-4bit", Mlx4),
        (Format::Mlx, "mlx-mxfp4-q8", MlxMxfp4),
    ] {
        let mut all = catalog().models.iter().flat_map(|model| &model.quants);
        let quant = all.find(|quant| quant.format == format && quant.name == name);
        let found = quants::QuantClass::of(quant.unwrap_or_else(|| panic!("no {name}")));
        assert_eq!(found, class, "{name}");
    }
}

fn arb_pool() -> impl Strategy<Value = Pool> {
    let devices = ["rtx-4090", "m4-pro-20", "a100-sxm-80gb", "strix-halo-8060s"];
    (0..devices.len(), 1.0..4000.0_f64).prop_map(move |(device, bandwidth)| {
        let known = devices[device];
        let mut pool = catalog()
            .pool(known, Some(64 << 30))
            .or_else(|| catalog().pool(known, None))
            .unwrap_or_else(|| pool("rtx-4090"));
        pool.bandwidth_gb_s = Some(bandwidth);
        pool
    })
}

proptest! {
    #[test]
    fn more_of_anything_is_never_quicker(
        pool in arb_pool(),
        tokens in 1_u32..512,
        more in 1_u64..1 << 36,
        prompt: bool,
    ) {
        let speed = SpeedModel::new(catalog());
        let rate = if prompt { Rate::Prefill } else { Rate::Decode };
        let at = |work: Work| speed.step_s(&pool, "llama.cpp", &Work { rate, ..work });
        let Ok(seconds) = at(work(tokens)) else { return Ok(()) };
        prop_assert!(seconds > 0.0 && seconds.is_finite());
        let heavier = Work { weight_bytes: work(tokens).weight_bytes + more, ..work(tokens) };
        prop_assert!(at(heavier).unwrap() >= seconds);
        prop_assert!(at(work(tokens + 1)).unwrap() >= seconds);
        let mut faster = pool.clone();
        faster.bandwidth_gb_s = pool.bandwidth_gb_s.map(|rate| rate * 2.0);
        let quicker = speed.step_s(&faster, "llama.cpp", &Work { rate, ..work(tokens) });
        prop_assert!(quicker.unwrap() <= seconds);
    }

    #[test]
    fn a_batch_is_never_slower_a_token(pool in arb_pool(), tokens in 1_u32..256) {
        let speed = SpeedModel::new(catalog());
        let each = |tokens: u32| {
            speed.step_s(&pool, "llama.cpp", &work(tokens)).unwrap() / f64::from(tokens)
        };
        prop_assert!(each(tokens + 1) <= each(tokens) * (1.0 + 1e-9));
    }

    #[test]
    fn an_interval_holds_its_middle(
        mid in 1e-3..1e5_f64,
        context in 1_u32..1 << 20,
        pool in arb_pool(),
        nodes in 1_usize..5,
        prompt: bool,
    ) {
        let speed = SpeedModel::new(catalog());
        let rate = if prompt { Rate::Prefill } else { Rate::Decode };
        let pools: Vec<&Pool> = vec![&pool; nodes];
        let setting = Setting { nodes, ..setting("llama-3.1-8b", "Q4_K_M", pools, context) };
        let found = speed.around(mid, rate, &setting);
        prop_assert!(0.0 < found.low && found.low < found.mid && found.mid < found.high);
        prop_assert!(found.high.is_finite());
    }
}
