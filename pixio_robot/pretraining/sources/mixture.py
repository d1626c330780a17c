"""Several sources as one stream, mixed by weight."""

import hashlib
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.pretraining.sources.cache import ImageCache
from pixio_robot.pretraining.sources.stream import ImageStream, Lane, Sample, State

_CHOICES_AT_ONCE = 1024
_CHOICE, _ORDER = 100, 101  # streams of random numbers, apart from those of grouped.py


class CacheStream:
    """The images of a cache as endless lanes, for mixtures."""

    def __init__(self, cache: ImageCache) -> None:
        self.fingerprint = cache.fingerprint
        self.images: int | None = len(cache)
        self.side = cache.side
        self._cache = cache

    def check(self, lanes: int) -> None:
        """Refuse more lanes than images.

        Raises:
            UserError: Says how many lanes are possible.
        """
        if lanes > len(self._cache):
            raise UserError(
                f"{len(self._cache)} images cannot be shared out to {lanes} lanes: lower pretraining.lanes."
            )

    def samples(self, lane: Lane, state: State | None = None) -> Generator[Sample]:
        """Yield images in a new random order every epoch, those of the lane without end."""
        state = state or {"epoch": 0, "offset": 0}
        epoch, offset = state["epoch"], state["offset"]
        while True:
            rng = np.random.default_rng([lane.seed, _ORDER, epoch])
            indices = rng.permutation(len(self._cache))[lane.lane :: lane.lanes]
            for position in range(offset, len(indices)):
                index = int(indices[position])
                yield Sample(
                    self._cache.names([index])[0],
                    self._cache[index].numpy(),
                    float(self._cache.aspect_N[index]),
                    {"epoch": epoch, "offset": position + 1},
                )
            epoch, offset = epoch + 1, 0

    def preview(self, count: int) -> list[np.ndarray]:
        """Return up to `count` images, spread over the cache."""
        return list(self._cache.read(np.linspace(0, len(self._cache) - 1, count).astype(int).tolist()).numpy())


class Mixture:
    """Draws the source of every image by weight.

    Args:
        sources: What is mixed; names of images begin with the source's name.
        weights: Relative frequencies of the sources' images, one per source.

    Raises:
        UserError: A weight is not positive, or there are no sources.
    """

    def __init__(self, sources: dict[str, ImageCache | ImageStream], weights: Sequence[float]) -> None:
        if not sources:
            raise UserError("A mixture needs sources: give images.sources=[{kind: …, weight: …}, …].")
        if not all(weight > 0 and np.isfinite(weight) for weight in weights):
            raise UserError(f"The weights of a mixture must be positive numbers, not {list(weights)}.")
        self.images: int | None = None
        self._streams: dict[str, ImageStream] = {
            name: CacheStream(source) if isinstance(source, ImageCache) else source for name, source in sources.items()
        }
        self.side = min(stream.side for stream in self._streams.values())
        self._shares = np.asarray(weights, dtype=np.float64) / np.sum(weights)
        recipe = " ".join(
            f"{stream.fingerprint}:{share}" for stream, share in zip(self._streams.values(), self._shares)
        )
        self.fingerprint = hashlib.sha256(f"mixture {recipe}".encode()).hexdigest()[:16]

    def check(self, lanes: int) -> None:
        """Refuse a number of lanes that one of the sources cannot be split into.

        Raises:
            UserError: Says how many lanes are possible.
        """
        for stream in self._streams.values():
            stream.check(lanes)

    def samples(self, lane: Lane, state: State | None = None) -> Generator[Sample]:
        """Yield a lane's samples without end, from the start or from where `state` was left."""
        names = list(self._streams)
        drawn: int = state["drawn"] if state else 0
        states: dict[str, Any] = dict(state["sources"]) if state else dict.fromkeys(names)
        lanes = {name: stream.samples(lane, states[name]) for name, stream in self._streams.items()}
        try:
            while True:
                block, position = divmod(drawn, _CHOICES_AT_ONCE)
                rng = np.random.default_rng([lane.seed, _CHOICE, lane.lane, block])
                choices = rng.choice(len(names), _CHOICES_AT_ONCE, p=self._shares)
                for choice in choices[position:].tolist():
                    name = names[choice]
                    sample = next(lanes[name])
                    drawn += 1
                    states = states | {name: sample.state}
                    yield sample._replace(
                        name=f"{name}/{sample.name}",
                        state={"drawn": drawn, "sources": states},
                        skipped=tuple(f"{name}/{skipped}" for skipped in sample.skipped),
                    )
        finally:
            for samples in lanes.values():
                samples.close()

    def preview(self, count: int) -> list[np.ndarray]:
        """Return up to `count` images, equally many of each source."""
        share = -(-count // len(self._streams))
        return [pixels for stream in self._streams.values() for pixels in stream.preview(share)][:count]
