"""How many answers to have under way at once: as many as the engine finishes well within their deadline."""

START_ANSWERS = 64
START_ANSWERS_A_QUESTION = 8
START_TOKENS = 1 << 16


class Window:
    """A size in answers: a question of an order with k answers weighs k.

    Grows by the answers of each group that took less than a quarter of its deadline, so it doubles with each round trip. Shrinks by
    those of a group that took more than half, and to a half when the engine said that it is full. One question is always let in.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._is_measured = False
        self._k = START_ANSWERS_A_QUESTION
        self.size = min(START_ANSWERS, maximum)

    def questions(self, answers_under_way: int) -> int:
        """How many more questions to claim, if they are like the last ones; 0 until a quarter of the window is free."""
        if not answers_under_way:
            return max(1, self.size // self._k)
        free = self.size - answers_under_way
        return free // self._k if free >= self.size / 4 else 0

    def claimed(self, k: int, max_tokens: int) -> None:
        """Questions of `k` answers came: until one is measured, START_TOKENS are what an engine can take."""
        self._k = k
        if not self._is_measured:
            self.size = min(self._maximum, max(1, START_TOKENS // max_tokens))

    def sampled(self, k: int, elapsed_s: float, deadline_s: float) -> None:
        """One group's samples came."""
        self._is_measured = True
        if elapsed_s < deadline_s / 4:
            self.size = min(self._maximum, self.size + k)
        elif elapsed_s > deadline_s / 2:
            self.size = max(1, self.size - k)

    def overloaded(self) -> None:
        """The engine took no more, or did not finish in time."""
        self._is_measured = True
        self.size = max(1, self.size // 2)
