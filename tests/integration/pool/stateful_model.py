"""What the pool should be after every call, in plain Python: orders, assignments, groups and batches, and nothing of its code.

Where the pool may choose (which assignment is claimed, which groups are leased), the model is told the choice and says whether it
was allowed; everything else it knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_BLAMELESS_FAILURES = 50


@dataclass
class ModelOrder:
    """An order; `watermark` is that of a standing one."""

    k: int
    version: int
    max_attempts: int
    watermark: int | None
    state: str = "open"


@dataclass
class ModelAssignment:
    """An assignment; `over`: its lease has expired; `paused`: it was given back and waits."""

    order: str
    question: str
    version: int
    state: str = "open"
    attempts: int = 0
    blameless: int = 0
    token: str | None = None
    over: bool = False
    paused: bool = False

    @property
    def unfinished(self) -> bool:
        return self.state in ("open", "leased")

    @property
    def available(self) -> bool:
        return (self.state == "open" and not self.paused) or (self.state == "leased" and self.over)


@dataclass
class ModelGroup:
    """A stored group."""

    order: str
    question: str
    version: int
    consumption: str


@dataclass
class ModelBatch:
    """The batch of a step of a run."""

    order: str
    state: str
    groups: set[str]
    over: bool = False


@dataclass
class Model:
    """Everything that one campaign has."""

    train: dict[str, bool] = field(default_factory=dict)  # question → whether it is usable
    leaked: set[str] = field(default_factory=set)  # train questions that are eval questions, too
    retracted: set[str] = field(default_factory=set)
    orders: dict[str, ModelOrder] = field(default_factory=dict)
    assignments: dict[str, ModelAssignment] = field(default_factory=dict)
    groups: dict[str, ModelGroup] = field(default_factory=dict)
    batches: dict[tuple[str, int], ModelBatch] = field(default_factory=dict)
    fences: dict[str, int] = field(default_factory=dict)

    # Questions

    def leak(self, question: str) -> None:
        self._drop_waiting(question)
        self.train[question] = False
        self.leaked.add(question)

    def retract(self, question: str) -> int:
        """How many waiting groups are dropped."""
        dropped = 0 if question in self.retracted else self._drop_waiting(question)
        self.train[question] = False
        self.retracted.add(question)
        return dropped

    def _drop_waiting(self, question: str) -> int:
        waiting = [
            group for group in self.groups.values() if (group.question, group.consumption) == (question, "waiting")
        ]
        for group in waiting:
            group.consumption = "dropped"
        return len(waiting)

    # Assignments

    def usable(self) -> set[str]:
        return {question for question, usable in self.train.items() if usable}

    def of_order(self, order: str) -> list[ModelAssignment]:
        return [assignment for assignment in self.assignments.values() if assignment.order == order]

    def progress(self, order: str) -> tuple[int, int, int]:
        """(total, done, dead)."""
        states = Counter(assignment.state for assignment in self.of_order(order))
        return states.total() - states["withdrawn"], states["done"], states["dead"]

    def missing(self, order: str) -> int:
        """How many assignments a standing order is short of; a question can be taken more than once."""
        standing = self.orders[order]
        if standing.watermark is None or standing.state != "open":
            return 0
        unfinished = sum(assignment.unfinished for assignment in self.of_order(order))
        wanted = standing.watermark - len(self.waiting(order)) - unfinished
        return max(0, wanted) if self.usable() else 0

    def hopeless(self) -> set[str]:
        """Available assignments that a claim gives up instead of leasing them."""
        return {
            id_
            for id_, assignment in self.assignments.items()
            if assignment.available
            and (
                not self.train[assignment.question] or assignment.attempts >= self.orders[assignment.order].max_attempts
            )
        }

    def claimable(self) -> set[str]:
        """Available assignments that a claim may lease."""
        return {id_ for id_, assignment in self.assignments.items() if assignment.available} - self.hopeless()

    def claim(self, id_: str, token: str) -> None:
        assignment = self.assignments[id_]
        assignment.state, assignment.token, assignment.over = "leased", token, False
        assignment.attempts += 1

    def fail(self, id_: str, counts: bool) -> str:
        """The state that a held lease is given back into."""
        assignment = self.assignments[id_]
        assignment.attempts -= not counts
        assignment.blameless += not counts
        gives_up = assignment.attempts >= self.orders[assignment.order].max_attempts
        if gives_up or assignment.blameless >= MAX_BLAMELESS_FAILURES:
            assignment.state = "dead"
        else:
            assignment.state, assignment.paused = "open", True
        assignment.token = None
        self.complete_finished()
        return assignment.state

    def hand_in(self, id_: str, token: str, version: int, scored: bool, group: str) -> str:
        """The status of a group that comes in."""
        assignment = self.assignments[id_]
        if assignment.state == "done":
            return "duplicate"
        if version != assignment.version:
            return "refused"
        late = assignment.state != "leased" or assignment.token != token or assignment.over
        assignment.state = "done"
        standing = self.orders[assignment.order].watermark is not None
        consumption = ("waiting" if scored else "dropped") if standing else "none"
        self.groups[group] = ModelGroup(assignment.order, assignment.question, assignment.version, consumption)
        self.complete_finished()
        return "late" if late else "stored"

    def set_policy(self, order: str, version: int) -> None:
        self.orders[order].version = version
        for assignment in self.of_order(order):
            if assignment.state == "open" and assignment.attempts == 0:
                assignment.version = version

    def close(self, order: str) -> None:
        if self.orders[order].state != "open":
            return
        self.orders[order].state = "closed"
        for assignment in self.of_order(order):
            if assignment.unfinished:
                assignment.state = "withdrawn"

    def complete_finished(self) -> None:
        for id_, order in self.orders.items():
            if order.state == "open" and order.watermark is None:
                unfinished = any(assignment.unfinished for assignment in self.of_order(id_))
                order.state = "open" if unfinished else "complete"

    # Batches

    def waiting(self, order: str) -> set[str]:
        return {id_ for id_, group in self.groups.items() if group.order == order and group.consumption == "waiting"}

    def take_fence(self, run: str, fence: int) -> bool:
        """Whether the run still goes on under this fence."""
        self.fences[run] = max(fence, self.fences.get(run, 0))
        return fence >= self.fences[run]

    def prepare_lease(self, run: str, step: int, order: str, oldest: int) -> tuple[ModelBatch | None, int]:
        """What happens before groups are chosen: the batch that is held already, and how many were too old."""
        for (of_run, _), batch in self.batches.items():
            if of_run == run and batch.state == "leased":
                batch.over = False
        held = self.batches.get((run, step))
        if held is not None and held.state == "leased" and self._versions(held.groups) & set(range(oldest)):
            self._give_back([held])
        self._give_back([batch for batch in self.batches.values() if batch.order == order and batch.over])
        stale = {id_ for id_ in self.waiting(order) if self.groups[id_].version < oldest}
        unusable = {id_ for id_ in self.waiting(order) if not self.train[self.groups[id_].question]}
        for id_ in stale | unusable:
            self.groups[id_].consumption = "dropped"
        return (held if held is not None and held.state != "released" else None), len(stale)

    def lease(self, run: str, step: int, order: str, groups: set[str]) -> None:
        self.batches[run, step] = ModelBatch(order, "leased", groups)
        self._consume(groups, "leased")

    def acknowledge(self, run: str, step: int) -> str:
        """The error's code, or the state."""
        batch = self.batches.get((run, step))
        if batch is None:
            return "not_found"
        if batch.state == "released":
            return "batch_lost"
        batch.state, batch.over = "acknowledged", False
        self._consume(batch.groups, "consumed")
        return "acknowledged"

    def release(self, run: str, from_step: int) -> int:
        """How many groups go back."""
        leased = [
            batch
            for (of_run, step), batch in self.batches.items()
            if of_run == run and step >= from_step and batch.state == "leased"
        ]
        return self._give_back(leased)

    def _give_back(self, batches: Iterable[ModelBatch]) -> int:
        given = 0
        for batch in batches:
            given += len(batch.groups)
            self._consume(batch.groups, "waiting")
            batch.state, batch.groups, batch.over = "released", set(), False
        return given

    def _consume(self, groups: set[str], consumption: str) -> None:
        for id_ in groups:
            self.groups[id_].consumption = consumption

    def _versions(self, groups: set[str]) -> set[int]:
        return {self.groups[id_].version for id_ in groups}
