"""How a search's seconds are shared out."""

from dataclasses import dataclass

RUN_OFF_SHARE = 0.15
"""Kept for the last decision."""

INSTANCES_SHARE = 0.2
"""Kept for processes side by side, where they are wanted."""

MEASURE_SHARE = 1 / 25
LONGEST_MEASURE = 10.0
FEWEST_PASSES = 8
"""Of eager's length: what timing a candidate takes at least, warm-up and three pairs."""

PATIENCE_SHARE = 1 / 16
LEAST_PATIENCE = 12.0
PROOF_PASSES = 4
"""After which a candidate that is not built yet makes room for others: seconds, and passes of
eager's length, which its proof takes besides. Starting a process, which imports torch and reads the
model, is a part of building."""


@dataclass(frozen=True)
class Budget:
    """When what has to end. Times are on ``time.monotonic``'s clock, durations in seconds.

    Attributes:
        begun: when the search began.
        seconds: that it may take.
        instances: whether processes side by side are wanted after the last decision.
        eager_pass: what eager takes for all batches.
    """

    begun: float
    seconds: float
    instances: bool
    eager_pass: float

    @property
    def end(self) -> float:
        """When everything has to end."""
        return self.begun + self.seconds

    @property
    def run_off_end(self) -> float:
        """When the last decision has to be made."""
        return self.end - self.seconds * (INSTANCES_SHARE if self.instances else 0.0)

    @property
    def trials_end(self) -> float:
        """When the last candidate has to be measured."""
        return self.run_off_end - self.seconds * RUN_OFF_SHARE

    @property
    def threads_end(self) -> float:
        """The same for the best candidate's other numbers of threads."""
        return self.run_off_end - self.seconds * RUN_OFF_SHARE / 2

    @property
    def measure(self) -> float:
        """For timing one candidate."""
        return min(LONGEST_MEASURE, self.seconds * MEASURE_SHARE)

    @property
    def whole_measure(self) -> float:
        """What that may come to, where a single pass takes long."""
        return max(self.measure, FEWEST_PASSES * self.eager_pass)

    def patience(self, pauses: int) -> float:
        """For going on to build a candidate that was stopped so often, while others wait.

        Each turn is twice as long as the one before, so that what needs little more gets it before
        what needs much more.
        """
        first = max(LEAST_PATIENCE, self.seconds * PATIENCE_SHARE)
        return (first + PROOF_PASSES * self.eager_pass) * (1 << pauses)
