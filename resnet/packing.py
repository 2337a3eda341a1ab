"""Many runs at once on one device: their steps are given to it in turn, each run's on a CUDA stream of its own.

A CIFAR network at batch 128 leaves most of a large GPU idle, so runs side by side cost little more than one. They
share the device and nothing else: each has its weights, its random streams, its CUDA graph; what comes out of a run
does not depend on its neighbours.
"""

import gc
import time
from collections.abc import Callable, Generator
from statistics import mean

import torch

from resnet.device import DeviceLost
from resnet.training import POLL_SECONDS

STREAMS = 32  # that PyTorch has of a device: more runs would share them, and wait for one another
GAIN = 1.05  # runs must together be so much faster than one half after the other, else they are not worth their memory
MEASURE_SECONDS = 3.0
MEMORY_SHARE = 0.8  # at most so much of the memory that was free at first is taken without being asked


class Pack:
    """Runs that train together on one device.

    ``limit``: at most so many at once, and no more than STREAMS; None finds out: twice as many as before, as long as
    that makes all of them together faster and the device has memory for them. Where the device runs out of memory,
    fewer go on. A CPU, which one run keeps busy, trains one after another. ``say`` is told what was found. Raises
    ValueError.
    """

    def __init__(self, device: torch.device, limit: int | None = None, say: Callable[[str], None] = lambda text: None):
        if limit is not None and limit < 1:
            raise ValueError(f"the number of runs at once must be at least 1, not {limit}")
        self._say = say
        self._members: list[_Member] = []
        self._turns: list[_Member] = []  # those who take turns now; the others wait
        self._current: _Member | None = None  # whose turn it is
        self.limit = 1 if limit is None or device.type == "cpu" else min(limit, STREAMS)
        if limit is not None and limit > STREAMS and device.type != "cpu":
            say(f"{STREAMS} at once: PyTorch has no more streams of a device")
        self._trial = _Trial(device) if limit is None and device.type == "cuda" else None

    @property
    def size(self) -> int:
        """How many runs have been begun and have not ended."""
        return len(self._members)

    @property
    def neighbours(self) -> int:
        """How many other runs each run that takes turns has on the device now."""
        return max(0, len(self._turns) - 1)

    def clock(self) -> float:
        """Seconds on a clock of the run whose turn it is, which stands still as long as the run waits for turns."""
        return time.perf_counter() - (self._current.waited if self._current is not None else 0.0)

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
                member.parts.close()

    def _fill(self, begin: Callable[[], Generator[int, None, None] | None]) -> bool:
        """Begin runs while there is room; whether one was begun."""
        before = len(self._members)
        while len(self._members) < self.limit and (parts := begin()) is not None:
            self._members.append(_Member(parts))
        if begun := len(self._members) > before:
            self._arrange()
        return begun

    def _arrange(self) -> None:
        """Settle who takes turns, after runs have come or gone or something was found."""
        self._turns = self._members[: self.limit] if self._trial is None else self._trial.group(self._members)
        for member in self._members:
            member.wait(member not in self._turns)

    def _turn(self) -> None:
        """Let the runs take their turns."""
        steps, ended, memory_sufficed = 0, False, True
        for member in self._turns:
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
                break  # the others are to find the memory that it had
        found = False
        if not memory_sufficed:
            self._shrink()
        elif self._trial is not None and not ended:
            found = self._try_more()
        if ended or found:
            self._arrange()
        elif not steps:
            time.sleep(POLL_SECONDS)

    def _shrink(self) -> None:
        """Go on with no more runs than are left after one ran out of memory. Raises DeviceLost."""
        try:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        except RuntimeError as error:  # want of memory ended a recording, and the allocator did not notice
            raise DeviceLost(f"the device takes no memory back after it did not suffice: {error}") from error
        self.limit, self._trial = min(self.limit, max(1, len(self._members))), None
        self._say(f"the device's memory did not suffice; going on with {self.limit} at once")

    def _try_more(self) -> bool:
        """Look whether something was found about how many runs at once are worth their while, and go by it."""
        if not self._trial.watch(self._turns):
            return False
        self.limit, over = self._trial.judge(self._members, self.limit)
        if over:
            self._trial = None
            self._say(f"{self.limit} at once: more would not be faster, or find no memory or stream of their own")
        return True


class _Member:
    """A run of a pack: its training in small parts, how fast it goes, and how long it was kept waiting, in seconds."""

    def __init__(self, parts: Generator[int, None, None]):
        self.parts = parts
        self.waited = 0.0
        self._waits_since: float | None = None
        self.begin_window()

    def wait(self, waits: bool) -> None:
        now = time.perf_counter()
        if self._waits_since is not None:
            self.waited += now - self._waits_since
        self._waits_since = now if waits else None

    def advance(self) -> int:
        """Train the next part; the number of steps that the device has done."""
        steps = next(self.parts)
        if steps:
            self._last = time.perf_counter()
            if self._first is None:
                self._first = self._last
            else:
                self._steps += steps
        return steps

    def begin_window(self) -> None:
        """Measure the speed anew."""
        self._first, self._last, self._steps = None, None, 0

    @property
    def speed(self) -> float:
        """Steps per second between the first and the last moment at which the device had done some; 0 if unknown.

        So it does not count what the device was given before, nor what it has still to do.
        """
        return self._steps / (self._last - self._first) if self._steps else 0.0


class _Trial:
    """Finds how many runs at once are worth their while, from what they do in real training.

    So many runs as are known to be, ``_proven``, are measured by themselves, then as many others by themselves, then
    all at once: is that faster than one group after the other? A run's progress counts in units of its own speed in
    its group, since the steps of different runs don't compare.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._free_at_first = torch.cuda.mem_get_info(device)[0]
        self._proven = 1
        self._measured: list[dict[_Member, float]] = []  # speeds in each of the groups
        self._began: float | None = None

    def group(self, members: list[_Member]) -> list[_Member]:
        """Those who are to be measured now; what was measured stays known of groups that are still the same."""
        first, others = members[: self._proven], members[self._proven :]
        groups = [first, others, [*members]] if others else [first]
        while any(list(speeds) != group for speeds, group in zip(self._measured, groups)):
            self._measured.pop()
        del self._measured[len(groups) :]
        self._began = None
        return groups[min(len(self._measured), len(groups) - 1)]

    def watch(self, group: list[_Member]) -> bool:
        """Whether the group was seen long enough, after another round of turns. In the first one, runs are prepared."""
        now = time.perf_counter()
        if self._began is None:
            self._began = now
            for member in group:
                member.begin_window()
        return now - self._began >= MEASURE_SECONDS and all(member.speed for member in group)

    def judge(self, members: list[_Member], limit: int) -> tuple[int, bool]:
        """At most how many runs there are to be at once, ``limit`` until now, and whether that is the last word."""
        group = self.group(members)
        self._measured.append({member: member.speed for member in group})
        if len(self._measured) == 3:
            *halves, together = self._measured
            # What all at once do in a second takes a group by itself so long, on average over its runs.
            seconds = [mean(together[member] / speed for member, speed in half.items()) for half in halves]
            if sum(seconds) < GAIN:
                return self._proven, True
            self._proven, self._measured = len(members), [together]
        if len(self._measured) > 1 or not len(members) == self._proven == limit:
            return limit, False
        more = min(2 * limit, self._room(limit), STREAMS)
        return max(more, limit), more <= limit

    def _room(self, count: int) -> int:
        """How many runs the device has memory for, by what ``count`` of them have taken."""
        taken = self._free_at_first - torch.cuda.mem_get_info(self._device)[0]
        return int(MEMORY_SHARE * self._free_at_first * count / max(taken, 1))
