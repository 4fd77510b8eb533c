//! The commands that run a plan with vLLM.

use std::fmt::Write;

use super::{Run, is_plain, one_line, placeholder, quoted};
use crate::machine::PoolKind;
use crate::model::Format;

pub(super) fn commands(run: &Run) -> Result<String, String> {
    if run.quant.format != Format::Safetensors {
        return Err(format!(
            "it runs safetensors (16 bits, FP8, AWQ, GPTQ), and {} is {}; choose such a quantization",
            run.quant.name,
            match run.quant.format {
                Format::Gguf => "GGUF",
                Format::Mlx => "MLX",
                Format::Safetensors => "safetensors",
            }
        ));
    }
    let mut sizes = Vec::new();
    for stage in &run.plan.stages {
        let node = &run.cluster.nodes[stage.node];
        for part in &stage.packing.parts {
            let pool = &node.machine.pools[part.pool];
            if pool.family.starts_with("apple") || pool.kind == PoolKind::Ram {
                return Err(format!(
                    "it computes with CUDA or ROCm, and layers lie on {} of {}",
                    pool.device_name, node.name
                ));
            }
        }
        if stage.packing.experts_in_ram > 0 {
            return Err(format!("experts lie in system memory on {}", node.name));
        }
        sizes.push(stage.packing.parts.len());
    }
    let nodes = run.plan.stages.len();
    let gpus = sizes.first().copied().unwrap_or(0);
    if sizes.iter().any(|&size| size != gpus) {
        return Err("its nodes must have the same number of GPUs, and the plan's have not".into());
    }
    let mut text = String::new();
    if nodes > 1 {
        text.push_str(
            "# vLLM divides the layers evenly; Ray is neither encrypted nor authenticated.\n",
        );
        let head = &run.cluster.nodes[run.plan.stages[0].node].name;
        for (index, stage) in run.plan.stages.iter().enumerate() {
            let node = &run.cluster.nodes[stage.node];
            let line = format!("# on {} ({})", node.name, node.machine.name);
            let _ = writeln!(text, "{}", one_line(&line));
            let address = placeholder(&format!("address of {head}"), head);
            let _ = match index {
                0 => writeln!(text, "ray start --head --port=6379"),
                _ => writeln!(text, "ray start --address={}:6379", one_line(&address)),
            };
        }
        let _ = writeln!(text, "# then on {}", one_line(head));
    }
    // The repository has the checkpoint that people serve; another one is somebody else's.
    let own = run.model.production_quant(Some(Format::Safetensors));
    let own = own.is_none_or(|own| own.name == run.quant.name);
    let model = match run.model.repo.as_deref() {
        None => "<model>".to_owned(),
        Some(repo) if !own => {
            let text = format!("a checkpoint of {repo} at {}", run.quant.name);
            quoted(&one_line(&format!("<{text}>")))
        }
        Some(repo) if is_plain(repo) => repo.to_owned(),
        Some(repo) => quoted(&one_line(repo)),
    };
    let _ = write!(
        text,
        "vllm serve {model} --max-model-len {} --max-num-seqs {}",
        run.load.context,
        run.load.sequences.max(1)
    );
    if gpus > 1 {
        let _ = write!(text, " \\\n  --tensor-parallel-size {gpus}");
    }
    if nodes > 1 {
        let _ = write!(
            text,
            " \\\n  --pipeline-parallel-size {nodes} --distributed-executor-backend ray"
        );
    }
    text.push('\n');
    Ok(text)
}
