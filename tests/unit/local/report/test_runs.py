"""A run as plain data and in words."""

import pytest

from services.local.report.runs import heading, remark, run_json
from shared.contracts.runs import RunFailure, RunState
from tests.unit.local import samples


def test_every_name_has_a_value_or_null_at_each_step():
    run = run_json(samples.run("rl"), samples.points(3, kl=lambda step: 0.5 if step == 2 else None))
    assert run["steps_logged"] == [1, 2, 3]
    assert run["values"] == {"loss": [3.0, 2.0, 1.0], "kl": [None, 0.5, None]}
    assert run["data"] == {"rows": 9.0}
    assert run["max_staleness"] == 2
    assert heading(run) == "rl: RL, succeeded, 3 of 3 steps, 1,200 tokens, 60 s, 9 rows"


@pytest.mark.parametrize(
    ("changes", "logged", "said"),
    [
        (
            {"state": RunState.FAILED, "failure": RunFailure.OUT_OF_MEMORY, "message": "Less."},
            1,
            "out_of_memory: Less.",
        ),
        ({"state": RunState.CANCELLED, "step": 0}, 0, "No step was logged."),
        ({"state": RunState.QUEUED, "message": "Silent."}, 0, "Silent. (no step was logged)"),
        ({}, 3, ""),
    ],
)
def test_why_a_run_failed_or_has_no_curves_is_said(changes: dict[str, object], logged: int, said: str):
    assert remark(run_json(samples.run("sft", **changes), samples.points(logged))) == said
