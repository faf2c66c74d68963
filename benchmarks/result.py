"""The last line of every benchmark with `--json`: `{name, value, unit, reference, ratio, n}`."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """`ratio` = value / reference; `n` counts what the value rests on."""

    name: str
    value: float
    unit: str
    reference: float
    n: int

    def line(self) -> str:
        """One JSON object on one line."""
        fields = asdict(self)
        n = fields.pop("n")
        return json.dumps({**fields, "ratio": self.value / self.reference if self.reference else None, "n": n})
