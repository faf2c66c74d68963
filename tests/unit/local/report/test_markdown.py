"""The report as Markdown."""

from services.local.report.content import METRICS
from services.local.report.markdown import markdown
from services.local.report.tables import title
from tests.unit.local import samples


def test_markdown_has_every_metric():
    text = markdown(samples.content())
    assert "| final accuracy % | 70.0 [65.0, 75.0] | – |" in text
    assert all(title(metric) in text for metric in METRICS)
    assert "| after probe-sft-0 | 0 | 0 | 6 |" in text
    assert "| level 1 | 90.0 [85.0, 95.0] n=400 | – |\n| level 2 | – | – |" in text


def test_markdown_has_every_run_with_its_curves():
    run = samples.content()["runs"][0]
    text = markdown({"runs": [run]})
    assert text.startswith(f"## Run {run['key']}: SFT, succeeded, 3 of 3 steps")
    assert "| loss | █▅▁ | 3 | 3 | 1 | 1 | 3 |" in text
