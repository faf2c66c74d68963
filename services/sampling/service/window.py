"""How many questions to hold at once: as many as the engine finishes well within their deadline."""

START = 8


class Window:
    """Grows by one for each group that took less than a quarter of its deadline, so it doubles with each round trip.

    Shrinks by one for a group that took more than half, and to a half when the engine said that it is full.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self.size = min(START, maximum)

    def sampled(self, elapsed_s: float, deadline_s: float) -> None:
        """One group's samples came."""
        if elapsed_s < deadline_s / 4:
            self.size = min(self._maximum, self.size + 1)
        elif elapsed_s > deadline_s / 2:
            self.size = max(1, self.size - 1)

    def overloaded(self) -> None:
        """The engine took no more, or did not finish in time."""
        self.size = max(1, self.size // 2)
