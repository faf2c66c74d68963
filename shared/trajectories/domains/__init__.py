"""The domains: how the questions of one field are solved, verified and got wrong by rule. Looked up by name."""

from shared.trajectories.domains.arithmetic import ARITHMETIC
from shared.trajectories.domains.domain import Domain
from shared.trajectories.domains.word_problems import TEXT

DOMAINS: dict[str, Domain] = {domain.name: domain for domain in (ARITHMETIC, TEXT)}


def domain(name: str) -> Domain:
    """The domain of that name. Raises KeyError that lists the known names."""
    if name not in DOMAINS:
        raise KeyError(f"unknown domain {name!r}; known: {', '.join(sorted(DOMAINS))}")
    return DOMAINS[name]


__all__ = ["DOMAINS", "Domain", "domain"]
