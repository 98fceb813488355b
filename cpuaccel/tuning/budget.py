"""How a search divides its time."""

from dataclasses import dataclass

RUN_OFF_SHARE = 0.15
"""Share of the budget that is reserved for the run-off."""

INSTANCES_SHARE = 0.2
"""Share that is reserved for measuring throughput, where that is the target."""

MEASURE_SHARE = 1 / 25
LONGEST_MEASURE = 10.0
FEWEST_PASSES = 8
"""Passes of eager that timing a candidate takes at least: warm-up and three pairs."""

BUILD_SLICE_SHARE = 1 / 16
SHORTEST_BUILD_SLICE = 12.0
PROOF_PASSES = 4
"""A build that exceeds its slice is paused while others are tried. The slice includes starting the
process, which imports torch and reads the model, and comparing outputs, which takes this many
passes of eager."""


@dataclass(frozen=True)
class Budget:
    """The deadlines of a search, on ``time.monotonic``'s clock, and its durations, in seconds."""

    begun: float
    seconds: float
    instances: bool
    eager_pass: float

    @property
    def end(self) -> float:
        """Deadline of the search."""
        return self.begun + self.seconds

    @property
    def run_off_end(self) -> float:
        """Deadline of the run-off."""
        return self.end - self.seconds * (INSTANCES_SHARE if self.instances else 0.0)

    @property
    def trials_end(self) -> float:
        """Deadline for measuring candidates."""
        return self.run_off_end - self.seconds * RUN_OFF_SHARE

    @property
    def threads_end(self) -> float:
        """Deadline for measuring the best candidate with other numbers of threads."""
        return self.run_off_end - self.seconds * RUN_OFF_SHARE / 2

    @property
    def measure(self) -> float:
        """Duration of timing one candidate."""
        return min(LONGEST_MEASURE, self.seconds * MEASURE_SHARE)

    @property
    def measure_limit(self) -> float:
        """Duration of timing one candidate where a single pass is long."""
        return max(self.measure, FEWEST_PASSES * self.eager_pass)

    def build_slice(self, pauses: int) -> float:
        """Return how long a candidate may build before others get their turn."""
        first = max(SHORTEST_BUILD_SLICE, self.seconds * BUILD_SLICE_SHARE)
        # Doubled, so that a build that needs little more time gets it before a much longer one.
        return (first + PROOF_PASSES * self.eager_pass) * (1 << pauses)
