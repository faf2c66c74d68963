"""What the learning benchmark takes for a result."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.learning import _is_report_of_success, _pooled


@pytest.mark.parametrize(("status", "is_one"), [("succeeded", True), ("failed", False), ("running", False)])
def test_only_the_report_of_a_success_is_not_run_again(tmp_path: Path, status: str, is_one: bool):
    path = tmp_path / "report.json"
    assert not _is_report_of_success(path)
    path.write_text(json.dumps({"campaign": {"status": status}}))
    assert _is_report_of_success(path) is is_one


def test_pooling_refuses_a_seed_without_an_accuracy():
    known: dict[str, Any] = {"n": 100, "final_accuracy": 0.5, "error_recall": None}
    assert _pooled([known, {"n": 300, "final_accuracy": 0.7}])["final_accuracy"] == pytest.approx(0.65)
    for stages in ([known, {"n": 0, "final_accuracy": None}], []):
        with pytest.raises(ValueError, match="no final accuracy"):
            _pooled(stages)
