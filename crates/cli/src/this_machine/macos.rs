//! What macOS tells.

use super::{Facts, output_of};

/// The chip, its memory and the set limit, by `sysctl` and `ioreg`.
pub(super) fn facts() -> Facts {
    let names = [
        "hw.memsize",
        "hw.physicalcpu",
        "machdep.cpu.brand_string",
        "iogpu.wired_limit_mb",
    ];
    let sysctl = output_of("sysctl", &names).unwrap_or_default();
    let ioreg = output_of("ioreg", &["-rc", "AGXAccelerator", "-d", "1"]).unwrap_or_default();
    parse(&sysctl, &ioreg)
}

/// Reads `name: value` lines of `sysctl`, and `ioreg`'s properties of the GPU.
fn parse(sysctl: &str, ioreg: &str) -> Facts {
    let value = |name: &str| {
        let lines = sysctl.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
            .next()
    };
    let number = |name: &str| value(name).and_then(|value| value.parse::<u64>().ok());
    let gpu_cores = ioreg
        .lines()
        .filter_map(|line| line.split_once('='))
        .find(|(key, _)| key.contains("\"gpu-core-count\""))
        .and_then(|(_, value)| value.trim().parse().ok());
    Facts {
        cpu: value("machdep.cpu.brand_string")
            .unwrap_or_default()
            .to_owned(),
        cores: number("hw.physicalcpu").unwrap_or(1) as usize,
        memory_bytes: number("hw.memsize").unwrap_or(0),
        apple_gpu_cores: gpu_cores,
        // 0 stands for the system's own choice.
        wired_limit_mib: number("iogpu.wired_limit_mb").filter(|mib| *mib > 0),
        ..Facts::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSCTL: &str = "hw.memsize: 68719476736\nhw.physicalcpu: 14\n\
        machdep.cpu.brand_string: Apple M4 Pro\niogpu.wired_limit_mb: 0\n";
    const IOREG: &str = "+-o AGXAcceleratorG16X  <class AGXAcceleratorG16X, id 0x1000003f2>\n    {\n      \
        \"gpu-core-count\" = 20\n      \"model\" = \"Apple M4 Pro\"\n    }\n";

    #[test]
    fn a_mac_mini() {
        let facts = parse(SYSCTL, IOREG);
        let expected = Facts {
            cpu: "Apple M4 Pro".into(),
            cores: 14,
            memory_bytes: 64 << 30,
            apple_gpu_cores: Some(20),
            ..Facts::default()
        };
        assert_eq!(facts, expected);
        let raised = SYSCTL.replace("limit_mb: 0", "limit_mb: 58000");
        assert_eq!(parse(&raised, IOREG).wired_limit_mib, Some(58_000));
    }

    #[test]
    fn nothing_told() {
        let facts = parse("", "");
        assert_eq!((facts.memory_bytes, facts.apple_gpu_cores), (0, None));
    }
}
