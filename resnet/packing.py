"""Packing: several runs train on one device at once, taking turns, each on its own CUDA stream.

A CIFAR network at batch 128 leaves most of a large GPU idle, so several runs take little longer than one. They share
only the device: each run has its own weights, random streams and CUDA graph, and its results don't depend on its
neighbours.
"""

import gc
import time
from collections.abc import Callable, Generator
from statistics import mean

import torch

from resnet.device import DeviceLost
from resnet.training import POLL_SECONDS

STREAMS = 32  # PyTorch's streams per device; more runs would share streams and wait for one another
GAIN = 1.05  # least speed-up of all runs together over one half after the other that justifies their memory
MEASURE_SECONDS = 3.0
MEMORY_SHARE = 0.8  # largest share of the initially free memory that automatic packing uses


class Pack:
    """Runs that train together on one device.

    ``limit`` is the largest number of runs at once, at most STREAMS. None finds it by measurement: the number doubles
    as long as that raises the total speed and the device has enough memory. If the device runs out of memory, fewer
    runs continue. On a CPU, which one run keeps busy, runs train one after another. ``say`` is called with messages
    about the number of runs. While ``alone`` is true, nothing is measured: the only run is unlike the others. Raises
    ValueError for a limit below 1.
    """

    def __init__(self, device: torch.device, limit: int | None = None, say: Callable[[str], None] = lambda text: None):
        if limit is not None and limit < 1:
            raise ValueError(f"the number of runs at once must be at least 1, not {limit}")
        self._say = say
        self._members: list[_Member] = []
        self._active: list[_Member] = []  # the members that take turns now; the others wait
        self._current: _Member | None = None  # the member whose turn it is
        self.limit = 1 if limit is None or device.type == "cpu" else min(limit, STREAMS)
        if limit is not None and limit > STREAMS and device.type != "cpu":
            say(f"{STREAMS} runs at once: PyTorch has no more streams per device")
        self._trial = _Trial(device) if limit is None and device.type == "cuda" else None
        self.alone = False

    @property
    def size(self) -> int:
        """Number of runs that have started and not ended."""
        return len(self._members)

    @property
    def neighbours(self) -> int:
        """Number of other runs that share the device with each active run now."""
        return max(0, len(self._active) - 1)

    def clock(self) -> float:
        """Return the time in seconds for the run whose turn it is, without the time that the pack kept it waiting."""
        return time.perf_counter() - (self._current.waited if self._current is not None else 0.0)

    def train(self, begin: Callable[[], Generator[int, None, None] | None]) -> None:
        """Train until no run is left.

        ``begin`` starts the next run and returns its generator, like :func:`resnet.training.training`, or None if no
        run is to start now; it is called again whenever there is room. A run that raises torch.OutOfMemoryError leaves
        the pack, which stays smaller from then on; DeviceLost is raised if the run's memory can't be freed. Any other
        exception from a run ends the training of all, so runs must handle their own.
        """
        try:
            while self._fill(begin) or self._members:
                self._turn()
        finally:
            for member in self._members:
                member.parts.close()

    def _fill(self, begin: Callable[[], Generator[int, None, None] | None]) -> bool:
        """Start runs while there is room; return whether one was started."""
        before = len(self._members)
        while len(self._members) < self.limit and (parts := begin()) is not None:
            self._members.append(_Member(parts))
        if begun := len(self._members) > before:
            self._arrange()
        return begun

    def _arrange(self) -> None:
        """Choose the active members, after runs have started or ended or the limit has changed."""
        self._active = self._members[: self.limit] if self._trial is None else self._trial.group(self._members)
        for member in self._members:
            member.wait(member not in self._active)

    def _turn(self) -> None:
        """Give each active member one turn."""
        steps, ended, memory_sufficed = 0, False, True
        for member in self._active:
            self._current = member
            try:
                steps += member.advance()
                continue
            except StopIteration:
                pass
            except torch.OutOfMemoryError:
                memory_sufficed = False
            self._members.remove(member)
            ended = True
            if not memory_sufficed:
                break  # its memory must be freed before the others' turns
        found = False
        if not memory_sufficed:
            self._shrink()
        elif self._trial is not None and not ended and not self.alone:
            found = self._try_more()
        if ended or found:
            self._arrange()
        elif not steps:
            time.sleep(POLL_SECONDS)

    def _shrink(self) -> None:
        """Lower the limit to the runs that are left after one ran out of memory. Raises DeviceLost."""
        try:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        except RuntimeError as error:  # an out-of-memory error ended a graph capture, and the allocator did not notice
            raise DeviceLost(f"the device's memory can't be freed after it ran out: {error}") from error
        self.limit, self._trial = min(self.limit, max(1, len(self._members))), None
        self._say(f"the device ran out of memory; continuing with {self.limit} at once")

    def _try_more(self) -> bool:
        """Adjust the limit if a measurement is complete; return whether one was."""
        if not self._trial.watch(self._active):
            return False
        self.limit, over = self._trial.judge(self._members, self.limit)
        if over:
            self._trial = None
            self._say(f"{self.limit} at once: more would not be faster, or would lack memory or streams")
        return True


class _Member:
    """A run of a pack: the generator that trains it, its speed, and the seconds that it was kept waiting."""

    def __init__(self, parts: Generator[int, None, None]):
        self.parts = parts
        self.waited = 0.0
        self._waits_since: float | None = None
        self.begin_window()

    def wait(self, waits: bool) -> None:
        """Start or end this member's waiting, and add up the time that it waits."""
        now = time.perf_counter()
        if self._waits_since is not None:
            self.waited += now - self._waits_since
        self._waits_since = now if waits else None

    def advance(self) -> int:
        """Train the next part; return the number of steps that the device has finished."""
        steps = next(self.parts)
        if steps:
            self._last = time.perf_counter()
            if self._first is None:
                self._first = self._last
            else:
                self._steps += steps
        return steps

    def begin_window(self) -> None:
        """Start a new measurement of the speed."""
        self._first, self._last, self._steps = None, None, 0

    @property
    def speed(self) -> float:
        """Steps per second between the first and the last time that the device reported finished steps; 0 if unknown.

        This leaves out steps queued before the measurement and steps that are still queued.
        """
        return self._steps / (self._last - self._first) if self._steps else 0.0


class _Trial:
    """Search for the best number of runs at once, measured in real training.

    It measures a group of ``_proven`` runs, the number known to pay off, then a group of as many other runs, then both
    groups at once, to see whether that is faster than one group after the other. A run's speed is taken relative to its
    speed in its own group, because steps of different runs are not comparable.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._free_at_first = torch.cuda.mem_get_info(device)[0]
        self._proven = 1
        self._measured: list[dict[_Member, float]] = []  # speeds in each of the groups
        self._began: float | None = None

    def group(self, members: list[_Member]) -> list[_Member]:
        """Return the members to measure now; measurements of groups that have not changed are kept."""
        first, others = members[: self._proven], members[self._proven :]
        groups = [first, others, [*members]] if others else [first]
        while any(list(speeds) != group for speeds, group in zip(self._measured, groups)):
            self._measured.pop()
        del self._measured[len(groups) :]
        self._began = None
        return groups[min(len(self._measured), len(groups) - 1)]

    def watch(self, group: list[_Member]) -> bool:
        """Return whether the group has been measured long enough; call it after each round of turns.

        The first round, in which runs are prepared, is not measured.
        """
        now = time.perf_counter()
        if self._began is None:
            self._began = now
            for member in group:
                member.begin_window()
        return now - self._began >= MEASURE_SECONDS and all(member.speed for member in group)

    def judge(self, members: list[_Member], limit: int) -> tuple[int, bool]:
        """Return the new limit of runs at once, ``limit`` so far, and whether it is final."""
        group = self.group(members)
        self._measured.append({member: member.speed for member in group})
        if len(self._measured) == 3:
            *halves, together = self._measured
            # The seconds that each group alone needs for the work of one second of all at once, averaged over its runs.
            seconds = [mean(together[member] / speed for member, speed in half.items()) for half in halves]
            if sum(seconds) < GAIN:
                return self._proven, True
            self._proven, self._measured = len(members), [together]
        if len(self._measured) > 1 or not len(members) == self._proven == limit:
            return limit, False
        more = min(2 * limit, self._room(limit), STREAMS)
        return max(more, limit), more <= limit

    def _room(self, count: int) -> int:
        """Estimate the number of runs that fit into memory, from the memory that ``count`` runs take."""
        taken = self._free_at_first - torch.cuda.mem_get_info(self._device)[0]
        return int(MEMORY_SHARE * self._free_at_first * count / max(taken, 1))
