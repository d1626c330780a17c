"""How many CPU threads a training uses: as many as make its steps fastest, which depends on what else runs.

OpenMP's threads wait for each other in a loop. Small networks on free cores are fastest so; two trainings on the same cores
then each wait for threads that the other keeps from running, and are many times slower than with one thread each.
"""

import os
import statistics
import time

import torch

# Steps before the first trial (short runs are left alone), steps of a trial, and those at its beginning that do not count.
_SETTLING, _TRIAL, _WARMING = 40, 8, 2
# Seconds between trials, which grow by this factor while nothing changes, and how much slower steps bring one forward.
_SHORTEST, _LONGEST, _GROWTH, _SLOWER = 15.0, 120.0, 2.0, 1.4
# Another number has to be so much faster to be chosen.
_GAIN = 1.05


class ThreadTuner:
    """Tries smaller and larger numbers of torch's threads now and then, and keeps the fastest.

    Args:
        most: The largest number; each half of it down to one is tried. With 1 nothing is.
    """

    def __init__(self, most: int) -> None:
        self._numbers = [most >> halvings for halvings in range(most.bit_length())]
        self._recent: list[float] = []
        self._chosen, self._usual = most, 0.0
        self._waiting: list[int] = []
        self._found: dict[int, float] = {}
        self._pause, self._next_trial = _SHORTEST, 0.0

    def note(self, seconds: float) -> None:
        """Take the duration of a step; the number of threads may change for the next."""
        if len(self._numbers) == 1:
            return
        self._recent.append(seconds)
        if self._found or self._waiting:
            self._go_on()
            return
        if len(self._recent) < _SETTLING:
            return
        self._recent = self._recent[-_SETTLING:]
        now = statistics.median(self._recent[-_TRIAL:])
        is_slower = self._usual > 0 and now > _SLOWER * self._usual
        if time.monotonic() >= self._next_trial or is_slower:
            if is_slower:
                self._pause = _SHORTEST
            self._found = {self._chosen: now}
            self._waiting = [number for number in self._numbers if number != self._chosen]
            self._try_next()

    def _try_next(self) -> None:
        self._recent = []
        torch.set_num_threads(self._waiting[0])

    def _go_on(self) -> None:
        if len(self._recent) < _TRIAL:
            return
        self._found[self._waiting.pop(0)] = statistics.median(self._recent[_WARMING:])
        if self._waiting:
            self._try_next()
            return
        best = min(self._found, key=self._found.__getitem__)
        if best != self._chosen and self._found[best] * _GAIN < self._found[self._chosen]:
            self._chosen, self._pause = best, _SHORTEST
        else:
            self._pause = min(self._pause * _GROWTH, _LONGEST)
        self._usual = self._found[self._chosen]
        self._next_trial = time.monotonic() + self._pause
        self._found, self._recent = {}, []
        torch.set_num_threads(self._chosen)


def tuner_for(device: torch.device) -> ThreadTuner:
    """Return what tunes the threads of a training, which it leaves alone on a GPU, and where OMP_NUM_THREADS says how many."""
    most = torch.get_num_threads()
    return ThreadTuner(most if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ else 1)
