//! A node measures its machine without being asked.

use brigade_gguf::testing::TinyModel;

use crate::support::{Fleet, SOON, children, command_line, text, wait_until};

#[test]
fn a_node_measures_its_machine_until_it_is_needed() {
    let mut fleet = Fleet::new();
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
    assert_eq!(
        machine(&fleet)["calibrations"].as_array().map(Vec::len),
        Some(0)
    );
    fleet.end();
}
