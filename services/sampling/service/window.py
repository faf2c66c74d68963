"""How many questions to hold at once: as many as the engine finishes well within their deadline."""

START = 8
START_TOKENS = 1 << 16


class Window:
    """Grows by one for each group that took less than a quarter of its deadline, so it doubles with each round trip.

    Shrinks by one for a group that took more than half, and to a half when the engine said that it is full.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._is_measured = False
        self.size = min(START, maximum)

    def claimed(self, tokens: int) -> None:
        """A question of at most `tokens` new tokens came: until one is measured, START_TOKENS are what an engine can take."""
        if not self._is_measured:
            self.size = min(self._maximum, max(1, START_TOKENS // tokens))

    def sampled(self, elapsed_s: float, deadline_s: float) -> None:
        """One group's samples came."""
        self._is_measured = True
        if elapsed_s < deadline_s / 4:
            self.size = min(self._maximum, self.size + 1)
        elif elapsed_s > deadline_s / 2:
            self.size = max(1, self.size - 1)

    def overloaded(self) -> None:
        """The engine took no more, or did not finish in time."""
        self._is_measured = True
        self.size = max(1, self.size // 2)
