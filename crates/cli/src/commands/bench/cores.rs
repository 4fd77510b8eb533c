//! Pinning processes to cores.

/// Lets a process, or this thread and the processes that it starts, run on these cores only.
#[cfg(target_os = "linux")]
pub(super) fn pin(pid: Option<u32>, cores: &[usize]) -> anyhow::Result<()> {
    use anyhow::{Context, bail};
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    for &core in cores {
        if core >= CpuSet::MAX_CPU {
            bail!("there is no core {core}");
        }
        set.set(core);
    }
    let pid = pid.and_then(|pid| rustix::process::Pid::from_raw(pid as i32));
    sched_setaffinity(pid, &set).with_context(|| format!("cannot pin to cores {cores:?}"))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn pin(_pid: Option<u32>, _cores: &[usize]) -> anyhow::Result<()> {
    Ok(())
}
