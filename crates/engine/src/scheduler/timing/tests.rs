use super::*;

/// A chain of stages with these fixed and per-token microseconds, measured at these sizes.
fn measured(stages: &[(u32, u32)], links_us: u64, sizes: &[usize]) -> Timing {
    let mut timing = Timing::new(stages.len() as u32, 64);
    for _ in 0..20 {
        for &size in sizes {
            let us = |size: usize| -> Vec<u32> {
                let times = stages.iter().map(|(a, b)| a + b * size as u32);
                times.collect()
            };
            timing.observe(Some(Work::Decode), size, &us(size), Some(links_us));
            timing.observe(Some(Work::Prefill), 64, &us(64), Some(links_us));
        }
    }
    timing
}

#[test]
fn a_line_is_found_again() {
    let timing = measured(&[(700, 30), (100, 90)], 400, &[1, 3, 8, 16]);
    let lines = timing.decode_lines().unwrap();
    for (line, (fixed_us, token_us)) in lines.iter().zip([(700.0, 30.0), (100.0, 90.0)]) {
        assert!((line.fixed_us - fixed_us).abs() < 1.0, "{line:?}");
        assert!((line.token_us - token_us).abs() < 0.1, "{line:?}");
    }
    assert!((timing.links().unwrap().at(5.0) - 400.0).abs() < 1e-6);
}

#[test]
fn weights_are_not_read_twice_for_nothing() {
    for stages in [2, 4, 16] {
        let mut timing = measured(&vec![(5000, 0); stages], 100, &[1, 4, 16]);
        assert_eq!(timing.plan(64).groups, 1, "{stages} stages");
    }
}

#[test]
fn computing_is_divided_over_the_stages() {
    for stages in [2, 4, 8] {
        let mut timing = measured(&vec![(50, 100); stages], 0, &[1, 4, 16]);
        assert_eq!(timing.plan(64).groups, stages);
        // Slow links need more steps on their way.
        let mut timing = measured(&vec![(50, 100); stages], 4000, &[1, 4, 16]);
        assert!(timing.plan(64).groups > stages);
    }
    // One sequence cannot be divided.
    let mut timing = measured(&[(50, 100); 4], 0, &[1, 4]);
    assert_eq!(timing.plan(1).groups, 1);
}

#[test]
fn a_slow_stage_needs_fewer_groups() {
    let stages = [(10, 10), (10, 10), (10, 10), (100, 100)];
    let mut timing = measured(&stages, 0, &[1, 4, 16]);
    assert_eq!(timing.plan(32).groups, 2);
    // A train of chunks in front of the slow stage is what decode steps would wait for.
    let plan = timing.plan(1);
    assert_eq!((plan.chunks_alone, plan.chunks_beside), (3, 2));
}

#[test]
fn the_plan_does_not_flap() {
    // Splitting in two or three is within the noise of each other.
    let mut timing = measured(&[(1000, 60), (1000, 60)], 800, &[4, 8, 16]);
    let mut changes = 0;
    let mut last = timing.plan(16).groups;
    for round in 0..2000_u32 {
        let noise = (round.wrapping_mul(2_654_435_761) >> 24) % 100;
        let us = vec![1000 + 60 * 8 + noise; 2];
        timing.observe(Some(Work::Decode), 8, &us, Some(800));
        let groups = timing.plan(16).groups;
        changes += u32::from(groups != last);
        last = groups;
    }
    assert!(changes <= 1, "{changes} changes");
}

#[test]
fn a_stage_that_was_stopped_once_changes_nothing() {
    let mut timing = measured(&[(50, 100); 4], 0, &[1, 4, 16]);
    let before = timing.plan(16);
    timing.observe(Some(Work::Decode), 4, &[450, 450, 2_000_000, 450], None);
    for _ in 0..LOOK_EVERY {
        timing.observe(Some(Work::Decode), 4, &[450; 4], None);
    }
    assert_eq!(timing.plan(16), before);
}

#[test]
fn one_machine_lets_a_decode_step_wait_for_one_chunk() {
    let mut timing = measured(&[(100, 100)], 50, &[1, 4]);
    let plan = timing.plan(3);
    assert_eq!(plan.chunks_beside, 1);
    assert_eq!(plan.chunks_alone, 3);
}

/// A time that is all for each token leaves nothing, and by rounding a little less.
#[test]
fn no_part_of_a_time_is_negative() {
    for unit in 1..2000 {
        let mut curve = Curve::default();
        for (step, tokens) in [1, 3, 7, 64, 61, 1].into_iter().enumerate() {
            curve.observe(tokens, tokens as f64 * f64::from(unit) * 0.1, step as u64);
        }
        let line = curve.line(None, 6).unwrap();
        assert!(line.fixed_us >= 0.0 && line.token_us >= 0.0, "{line:?}");
    }
}
