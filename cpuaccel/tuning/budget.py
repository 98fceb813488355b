"""How a search divides its time."""

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


class Budget:
    """The timetable of a search: deadlines on ``time.monotonic``'s clock, durations in seconds.

    Attributes:
        begun: when the search began, with the first pass of eager.
        seconds: duration of the search.
        end: deadline of the search.
        run_off_end: deadline of the run-off.
        threads_end: deadline for measuring the best candidate with other numbers of threads.
        trials_end: deadline for measuring candidates.
        measure: duration of timing one candidate.
        measure_limit: duration of timing one candidate where a single pass is long.
    """

    def __init__(
        self, seconds: float, *, throughput: bool, begun: float, eager_pass: float
    ) -> None:
        """Divide the time.

        Args:
            seconds: of the whole search.
            throughput: whether the throughput of several processes is measured at the end.
            begun: when the search began, on ``time.monotonic``'s clock.
            eager_pass: seconds of a warm pass of eager over all batches.
        """
        self.begun = begun
        self.seconds = seconds
        self.end = self.begun + seconds
        self.run_off_end = self.end - (seconds * INSTANCES_SHARE if throughput else 0.0)
        self.threads_end = self.run_off_end - seconds * RUN_OFF_SHARE / 2
        self.trials_end = self.run_off_end - seconds * RUN_OFF_SHARE
        self.measure = min(LONGEST_MEASURE, seconds * MEASURE_SHARE)
        self.measure_limit = max(self.measure, FEWEST_PASSES * eager_pass)
        self._eager_pass = eager_pass

    def shortage(self, left: float) -> str:
        """Say why no candidate is tried when ``left`` seconds are left for trials."""
        if left < 1:
            return f"the budget of {self.seconds:.0f} s ended before it was tried"
        return f"not enough time left (needs about {self.measure_limit:.0f} s)"

    def build_slice(self, pauses: int) -> float:
        """Return how long a candidate may build before others get their turn."""
        first = max(SHORTEST_BUILD_SLICE, self.seconds * BUILD_SLICE_SHARE)
        # Doubled, so that a build that needs little more time gets it before a much longer one.
        return (first + PROOF_PASSES * self._eager_pass) * (1 << pauses)
