"""Which paths are public, and which service answers them. What is not listed here cannot be reached from outside."""

from dataclasses import dataclass
from urllib.parse import unquote

from shared.errors import HeadwaterError, NotFoundError
from shared.settings import Settings

READ, WRITE, BOTH = frozenset({"GET"}), frozenset({"POST"}), frozenset({"GET", "POST"})


@dataclass(frozen=True)
class Door:
    """`path` itself and (`below`) everything under it, for these methods; a segment `*` of the path is any one segment."""

    path: str
    methods: frozenset[str]
    service: str
    below: bool = True

    def covers(self, path: str) -> bool:
        """Whether this door leads to the path."""
        own, asked = self.path.split("/"), path.split("/")
        is_long_enough = len(asked) >= len(own) if self.below else len(asked) == len(own)
        return is_long_enough and all(part in ("*", given) for part, given in zip(own, asked, strict=False))


# The first door that covers a path and takes its method is the one: a narrow one stands before the wide one of its path.
DOORS = (
    Door("/v1/campaigns", BOTH, "cascade"),
    Door("/v1/questions/*/lineage", READ, "cascade", below=False),
    Door("/v1/questions/*/retract", WRITE, "cascade", below=False),
    Door("/v1/questions/retract", WRITE, "cascade", below=False),
    Door("/v1/questions", BOTH, "pool"),
    Door("/v1/pools", READ, "pool", below=False),
    Door("/v1/pools/difficulty", READ, "pool", below=False),
    Door("/v1/orders", READ, "pool"),
    Door("/v1/groups", READ, "pool"),
    Door("/v1/snapshots", BOTH, "pool"),
    Door("/v1/batches", READ, "pool", below=False),
    Door("/v1/question-events", READ, "pool", below=False),
    Door("/v1/policies/*/lineage", READ, "cascade", below=False),
    Door("/v1/policies", BOTH, "generation"),
    Door("/v1/engine", READ, "generation", below=False),
    Door("/v1/chat/completions", WRITE, "generation", below=False),
    Door("/v1/completions", WRITE, "generation", below=False),
    Door("/v1/models", READ, "generation", below=False),
    Door("/v1/runs", BOTH, "training"),
)
SERVICES = tuple(dict.fromkeys(door.service for door in DOORS))


def addresses(settings: Settings) -> dict[str, str]:
    """The base URL of each service with a door."""
    return {name: str(getattr(settings, f"{name}_url")).rstrip("/") for name in SERVICES}


def door_for(method: str, raw_path: str) -> Door:
    """The door of a request; `raw_path` is as it came, still percent-encoded.

    Raises: NotFoundError for a path that is not public, or that a service might read as another one (dots, doubled or
    encoded slashes); HeadwaterError 405 for a method that is not.
    """
    path = unquote(raw_path)
    segments = path.split("/")[1:]
    misread = path.count("/") != raw_path.count("/") or "\\" in path or not path.isprintable()
    if misread or any(segment in ("", ".", "..") for segment in segments):
        raise NotFoundError("public path", path.encode("unicode_escape").decode())
    covering = [door for door in DOORS if door.covers(path)]
    if not covering:
        raise NotFoundError("public path", path)
    for door in covering:
        if method in door.methods:
            return door
    allowed = ", ".join(sorted(frozenset.union(*(door.methods for door in covering))))
    raise HeadwaterError("method_not_allowed", f"{path} takes {allowed}, not {method}.", 405)
