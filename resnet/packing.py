"""Many runs at once on one device: their steps are given to it in turn, each run's on a CUDA stream of its own.

A CIFAR network at batch 128 leaves most of a large GPU idle, so runs side by side cost little more than one. They
share the device and nothing else: each has its weights, its random streams, its CUDA graph; what comes out of a run
does not depend on its neighbours.
"""

import gc
import time
from collections.abc import Callable, Generator

import torch

from resnet.device import DeviceLost
from resnet.training import POLL_SECONDS

GAIN = 1.05  # twice as many runs must together be so much faster, else they are not worth their memory
MEASURE_SECONDS = 3.0
MEMORY_SHARE = 0.8  # at most so much of the memory that was free at first is taken without being asked


class Pack:
    """Runs that train together on one device.

    ``limit``: at most so many at once; None finds out: twice as many as before, as long as that makes all of them
    together faster and the device has memory for them. Where the device runs out of memory, fewer go on. A CPU, which
    one run keeps busy, trains one after another. ``say`` is told what was found. Raises ValueError.
    """

    def __init__(self, device: torch.device, limit: int | None = None, say: Callable[[str], None] = lambda text: None):
        if limit is not None and limit < 1:
            raise ValueError(f"the number of runs at once must be at least 1, not {limit}")
        self._say = say
        self._members: list[Generator[int, None, None]] = []
        self.limit = 1 if limit is None or device.type == "cpu" else limit
        self._trial = _Trial(device) if limit is None and device.type == "cuda" else None

    @property
    def size(self) -> int:
        """How many runs train now."""
        return len(self._members)

    @property
    def neighbours(self) -> int:
        """How many other runs each run has on the device now."""
        return max(0, self.size - 1)

    def train(self, begin: Callable[[], Generator[int, None, None] | None]) -> None:
        """Train until no run is left.

        ``begin`` gives the next run in small parts, as :func:`resnet.training.training` does, or None if there is
        none to begin now; it is asked again whenever there is room. A run that lets torch.OutOfMemoryError through
        leaves the pack, which is smaller from then on; DeviceLost is raised where its memory can't be taken back. Any
        other exception of a run is its own to handle: if it lets one through, this ends the training of all.
        """
        try:
            while self._fill(begin) or self._members:
                self._turn()
        finally:
            for member in self._members:
                member.close()

    def _turn(self) -> None:
        """Let every run take its turn."""
        work, ended, memory_sufficed = 0, False, True
        for member in list(self._members):
            try:
                work += next(member)
                continue
            except StopIteration:
                pass
            except torch.OutOfMemoryError:
                memory_sufficed = False
            self._members.remove(member)
            ended = True
        if not memory_sufficed:
            self._shrink()
        elif self._trial is not None:
            self._grow(work, ended)
        if not work and not ended:
            time.sleep(POLL_SECONDS)

    def _fill(self, begin: Callable[[], Generator[int, None, None] | None]) -> bool:
        """Begin runs while there is room; whether one was begun."""
        before = len(self._members)
        while len(self._members) < self.limit and (member := begin()) is not None:
            self._members.append(member)
        return len(self._members) > before

    def _shrink(self) -> None:
        """Go on with no more runs than are left after one ran out of memory. Raises DeviceLost."""
        try:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        except RuntimeError as error:  # want of memory ended a recording, and the allocator did not notice
            raise DeviceLost(f"the device takes no memory back after it did not suffice: {error}") from error
        self.limit, self._trial = max(1, len(self._members)), None
        self._say(f"the device's memory did not suffice; going on with {self.limit} at once")

    def _grow(self, work: int, ended: bool) -> None:
        """Look whether the number of runs at once is known to be worth its while, and try twice as many."""
        full = len(self._members) == self.limit and not ended
        found = self._trial.watch(work, len(self._members), full)
        if found is None:
            return
        if found > self.limit:
            self.limit = found
        else:
            self.limit, self._trial = found, None
            self._say(f"{found} at once: more would not be faster, or would not fit into the device's memory")


class _Trial:
    """Finds how many runs at once are worth their while, from the work that they get done in real training."""

    def __init__(self, device: torch.device):
        self._device = device
        self._free_at_first = torch.cuda.mem_get_info(device)[0]
        self._best_rate = 0.0
        self._begin_window()

    def _begin_window(self) -> None:
        self._started, self._work, self._rounds = time.perf_counter(), 0, 0

    def watch(self, work: int, count: int, full: bool) -> int | None:
        """Take note of the work of a round of ``count`` runs; once enough was seen, the next number to try.

        It is ``count`` or less where that is the number to stay with. ``full`` is false where runs have just come or
        gone: the measurement then begins anew. So it does with the first round, in which runs are prepared.
        """
        if not full or self._rounds == 0:
            self._begin_window()
            self._rounds = int(full)
            return None
        self._work += work
        seconds = time.perf_counter() - self._started
        if seconds < MEASURE_SECONDS:
            return None
        rate = self._work / seconds
        if rate < GAIN * self._best_rate:
            return max(1, count // 2)
        self._best_rate = rate
        self._begin_window()
        return 2 * count if self._fits(count, 2 * count) else count

    def _fits(self, count: int, wanted: int) -> bool:
        """Whether the device has memory for ``wanted`` runs, by what ``count`` of them have taken."""
        taken = self._free_at_first - torch.cuda.mem_get_info(self._device)[0]
        return taken / count * wanted <= MEMORY_SHARE * self._free_at_first
