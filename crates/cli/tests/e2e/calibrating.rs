//! A node measures its machine without being asked.

use std::time::Duration;

use brigade_gguf::testing::TinyModel;

use crate::support::{Fleet, SOON, Scratch, children, command_line, smollm2, text, wait_until};

/// How long a measurement of some ten seconds may take that is repeated where it was disturbed.
const MEASURED: Duration = Duration::from_secs(600);

#[test]
fn a_node_measures_its_machine_until_it_is_needed() {
    // Beside other tests its figures would be such that it does not keep them.
    let mut fleet = Fleet::within(Scratch::undisturbed());
    fleet.start_as_usual("a", &[]);
    let pid = fleet.node("a").pid();
    let measures = || {
        let mut all = children(pid).into_iter();
        all.any(|(pid, state)| state != 'Z' && command_line(pid).contains("calibrator"))
    };
    let machine = |fleet: &Fleet| fleet.json("a", &["nodes"])["nodes"][0]["machine"].clone();
    wait_until("it measures", SOON, measures);
    wait_until("it says so", SOON, || {
        machine(&fleet)["calibrating"] == true
    });
    let model = fleet.scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let load = ["load", text(&model), "--ctx", "256", "--threads", "1"];
    fleet.json("a", &load);
    assert!(!measures(), "beside a stage");
    wait_until("it says so", SOON, || {
        machine(&fleet)["calibrating"] == false
    });
    // What was broken off tells nothing.
    let kept = || machine(&fleet)["calibrations"].as_array().map(Vec::len);
    assert_eq!(kept(), Some(0));

    // Idle again, it measures to the end, and the planner goes by it.
    assert_eq!(fleet.run("a", &["unload"]).code, Some(0));
    // Unless other machines on this host make such figures of it that it does not keep them.
    let gives_up = || {
        fleet
            .node("a")
            .stderr()
            .contains("this machine is not measured")
    };
    wait_until("it is over", MEASURED, || kept() == Some(1) || gives_up());
    wait_until("it says so", SOON, || {
        machine(&fleet)["calibrating"] == false
    });
    let plan = fleet.json("a", &["plan", text(&smollm2()), "--cluster"]);
    let decode = &plan["verdict"]["decode_tok_s"];
    let learnt = decode["evidence"] == "measured-near";
    assert_eq!(learnt, kept() == Some(1), "{decode}");
    assert!(!measures(), "once is enough");
    fleet.end();
}
