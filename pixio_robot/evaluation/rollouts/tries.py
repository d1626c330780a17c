"""Which episodes of an evaluation wait, which are over, and which videos are worth keeping."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pixio_robot.common.workers import Outcome
from pixio_robot.evaluation.record import Crash, Episode

_MAX_TRIES = 2
# So many lost episodes without a single finished one are no accident of theirs.
_LOST_BEFORE_GIVING_UP = 3


@dataclass(frozen=True)
class Try:
    """Episodes to run side by side.

    Attributes:
        rows: Seed of the episode in each row of the batch; None for a row without one.
        stream: Seeds the random generators of the process.
        number: How often these episodes have been tried, this time included.
        keep_success: In which rows to keep the video of a success.
        keep_failure: In which rows to keep the video of a failure.
    """

    rows: tuple[int | None, ...]
    stream: int
    number: int
    keep_success: tuple[bool, ...] = ()
    keep_failure: tuple[bool, ...] = ()

    @property
    def seeds(self) -> list[int]:
        """Seeds of its episodes."""
        return [seed for seed in self.rows if seed is not None]

    def alone(self, seed: int) -> "Try":
        """Return the next try at one of the episodes, with nothing in the other rows.

        The batch keeps its shape and the episode its row and random numbers, so that it is the same episode.
        """
        rows = tuple(seed if other == seed else None for other in self.rows)
        return Try(rows, self.stream, self.number + 1)


@dataclass(frozen=True)
class TriedEpisode:
    """How one episode of a try ended: with an `error` it never finished, and `details` say more."""

    episode: Episode
    details: str = ""


class Tries:
    """Hands out tries, and collects episodes.

    The seeds are divided into batches by their order alone, so that what runs beside what does not depend on the number
    of workers.

    Args:
        seeds: One episode each.
        batch_size: Rows of a batch; the last one may have fewer episodes.
        n_videos: How many videos will be shown.
    """

    def __init__(self, seeds: Sequence[int], batch_size: int, n_videos: int) -> None:
        self._seeds, self._n_videos = list(seeds), n_videos
        self._waiting: deque[Try] = deque()
        for start in range(0, len(seeds), batch_size):
            members = self._seeds[start : start + batch_size]
            rows = (*members, *[None] * (batch_size - len(members)))
            self._waiting.append(Try(rows, members[0], 1))
        self._episodes: dict[int, Episode] = {}
        self.crashes: list[Crash] = []

    @property
    def n_waiting(self) -> int:
        """Number of tries that wait."""
        return len(self._waiting)

    @property
    def is_complete(self) -> bool:
        """Whether every episode is over."""
        return len(self._episodes) == len(self._seeds)

    def next_try(self) -> Try:
        """Take the next try off the list."""
        try_ = self._waiting.popleft()
        return replace(
            try_,
            keep_success=tuple(seed is not None and self._may_show(seed, True) for seed in try_.rows),
            keep_failure=tuple(seed is not None and self._may_show(seed, False) for seed in try_.rows),
        )

    def note(self, outcome: Outcome[Try, list[TriedEpisode]]) -> list[Episode]:
        """Take in the end of a try.

        Returns:
            The episodes that are over for good.

        Raises:
            RuntimeError: No episode could be run.
        """
        try_ = outcome.task
        tried = outcome.result
        if outcome.crash is not None:
            beside = f", in a batch of {len(try_.seeds)} episodes" if len(try_.seeds) > 1 else ""
            tried = [TriedEpisode(Episode.lost(seed, outcome.crash + beside), outcome.details) for seed in try_.seeds]
        assert tried is not None
        over, again = [], []
        for one in tried:
            episode = one.episode
            if episode.error is not None:
                self.crashes.append(Crash(episode.seed, try_.number, episode.error))
                if try_.number < _MAX_TRIES:
                    again.append(try_.alone(episode.seed))
                    continue
            self._episodes[episode.seed] = episode
            over.append(episode)
            n_lost = sum(other.error is not None for other in self._episodes.values())
            if n_lost == len(self._episodes) >= min(_LOST_BEFORE_GIVING_UP, len(self._seeds)):
                raise RuntimeError(f"No episode could be run: {episode.error}\n{one.details}")
        self._waiting.extendleft(reversed(again))  # soon, so that an evaluation in which nothing runs ends soon
        return over

    def episodes_with_videos(self, videos_dir: Path | None) -> tuple[Episode, ...]:
        """Return all episodes in order, and remove the videos of those that are not to be shown."""
        episodes = [self._episodes[seed] for seed in self._seeds]
        if videos_dir is None:
            return tuple(episodes)
        shown = with_videos_to_show(episodes, self._n_videos)
        for episode, other in zip(episodes, shown, strict=True):
            if episode.video is not None and other.video is None:
                (videos_dir.parent / episode.video).unlink()
        return shown

    def _may_show(self, seed: int, success: bool) -> bool:
        # Enough such episodes before this one are known already: it cannot be among the first ones. That
        # holds in whatever order episodes finish, so that the choice of videos does not depend on it.
        before = self._seeds[: self._seeds.index(seed)]
        known = [self._episodes[other] for other in before if other in self._episodes]
        return sum(episode.success == success and episode.error is None for episode in known) < self._n_videos


def with_videos_to_show(episodes: Sequence[Episode], n_videos: int) -> tuple[Episode, ...]:
    """Return the episodes, of which only those that are to be shown have a video still: first failures, first successes.

    What a slice of the episodes shows contains what all of them together show.
    """
    failures = [episode for episode in episodes if episode.video and not episode.success]
    successes = [episode for episode in episodes if episode.video and episode.success]
    shown = failures[: max(n_videos // 2, n_videos - len(successes))]
    shown += successes[: n_videos - len(shown)]
    return tuple(episode if episode in shown else replace(episode, video=None) for episode in episodes)
