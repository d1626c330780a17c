"""Images in webdataset tar shards: a folder, brace notation, or any URL that webdataset opens."""

import hashlib
import importlib
import itertools
import logging
import re
import tarfile
import time
import types
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.images.decoding import SUFFIXES
from pixio_robot.pretraining.images import Curation
from pixio_robot.pretraining.sources.curation import chances_in
from pixio_robot.pretraining.sources.grouped import Group, GroupedStream, Item, check_share, shuffled_share
from pixio_robot.pretraining.sources.stream import Lane

log = logging.getLogger(__name__)

_PAUSES = (1, 4, 16)  # seconds before a remote shard is asked for again
_BLOCK = 512  # bytes, of tar archives
_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def find_shards(path: str | Sequence[str]) -> list[str]:
    """List shards in a fixed order.

    Args:
        path: A folder of `.tar`, `.tar.gz` or `.tgz` files (hidden ones, `.name`, are left out), a URL or file in brace notation
            (`shard-{0000..0099}.tar`), or several.

    Raises:
        UserError: There are no shards.
    """
    urls = []
    for one in [path] if isinstance(path, str) else path:
        if Path(one).is_dir():
            there = [file for file in Path(one).iterdir() if not file.name.startswith(".")]  # hidden: being written
            found = sorted(str(file) for file in there if file.name.endswith(_SUFFIXES))
            if not found:
                raise UserError(_no_shards(one, there))
            urls += found
        else:
            urls += _webdataset("shardlists").expand_urls(one)
    if not urls:
        raise UserError(_no_shards(str(path), []))
    for url in urls:
        if is_local(url) and not Path(url).is_file():
            raise UserError(f"There is no shard {url}: check images.path.")
    return urls


def _no_shards(path: str, there: Sequence[Path]) -> str:
    found = f", only {', '.join(sorted(file.name for file in there)[:8])}" if there else ""
    what = f"{path} holds no shards ({', '.join(_SUFFIXES)}){found}"
    return f"{what}: give a folder of them, brace notation or a URL as images.path=…"


def is_local(url: str) -> bool:
    """Tell a path from a URL."""
    return not re.match(r"[a-z0-9+.-]+:", url, re.IGNORECASE)


def read_shard(url: str) -> Iterator[Item]:
    """Yield the images of a shard under the names of their files; one that is cut off on disk ends with what went wrong.

    A remote one is asked for again, after growing pauses, and goes on behind the images that came.

    Raises:
        UserError: The shard cannot be opened; or, a remote one, not be read to its end.
    """
    given, pauses = 0, iter(_PAUSES if not is_local(url) else ())
    while True:
        try:
            for item in itertools.islice(_members(url), given, None):
                yield item
                given += 1
            return
        except Exception as error:  # each kind of URL fails in its own way
            if is_local(url) and isinstance(error, tarfile.TarError | EOFError):
                yield Item(f"rest of {url}", error)
                return
            pause, reason = next(pauses, None), _first_line(error)
            if pause is None:
                raise UserError(f"The shard {url} cannot be read ({reason}): check images.path.") from error
        log.warning("the shard %s cannot be read (%s): it is asked for again in %d s", url, reason, pause)
        time.sleep(pause)


def _members(url: str) -> Iterator[Item]:
    tar = _webdataset("tariterators")
    (source,) = tar.url_opener([{"url": url}])
    with source["stream"] as stream:
        ended = _Ended(stream)
        for file in tar.tar_file_iterator(ended, select_files=_is_image):
            yield Item(file["fname"], file["data"])
        if not ended.whole:
            raise tarfile.ReadError("cut off between two files")


def _is_image(name: str) -> bool:
    """Tell images; what is hidden is none, such as the `._1.jpg` that macOS puts before each 1.jpg."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


class _Ended:
    """A stream of bytes that notes whether it ended as archives do, plain ones with a block of zeros."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._first, self._last = stream, b"", b""

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data = self._stream.read(size)
        self._first = self._first or data[:_BLOCK]
        self._last = (self._last + data)[-_BLOCK:]
        return data

    @property
    def whole(self) -> bool:
        """Whether nothing is missing, as far as that shows; a compressed archive itself notices."""
        return self._first[257:262] != b"ustar" or not self._last.strip(b"\0")


class ShardStream(GroupedStream):
    """Shards in a new order every epoch, shuffled within the few that are held in memory.

    Args:
        path: See `find_shards`.
        side: Larger images are shrunk until their shorter side has this many pixels.
        shards_in_memory: Shards that are shuffled together; twice as many are held, in their encoded form.
        curation: Which images to show, from the tables that `scripts/score_images.py` wrote.
        unreadable: Share of the shards that may be unreadable before this ends the run, of remote ones.

    Raises:
        UserError: There are no shards.
    """

    def __init__(
        self,
        path: str | Sequence[str],
        side: int = 512,
        shards_in_memory: int = 2,
        curation: Curation | None = None,
        unreadable: float = 0.05,
    ) -> None:
        self.urls = find_shards(path)
        self.curation, self.unreadable = curation, unreadable
        self._left_out: set[str] = set()
        self._was_read = False
        sizes = [Path(url).stat().st_size if is_local(url) else 0 for url in self.urls]
        listing = "".join(f"{Path(url).name} {size}\n" for url, size in zip(self.urls, sizes, strict=True))
        recipe = f"shards {side} {shards_in_memory} {curation}\n{listing}"
        super().__init__(str(path), hashlib.sha256(recipe.encode()).hexdigest()[:16], side, shards_in_memory)

    def check(self, lanes: int) -> None:
        """Refuse more lanes than shards.

        Raises:
            UserError: Says how many lanes are possible.
        """
        check_share(self.label, len(self.urls), lanes)

    def lane_units(self, epoch: int, lane: Lane) -> list[str]:
        """Return a lane's share of the shards in the order of an epoch."""
        return shuffled_share(self.urls, epoch, lane)

    def read(self, units: Iterable[str], rng: np.random.Generator) -> Group:
        """Read shards, without what curation leaves out, and without remote ones that cannot be read, as long as they are few.

        Raises:
            UserError: More of them than `unreadable` cannot be read, or not one can.
        """
        items, eligible = [], 0
        for url in units:
            chances = chances_in(url, self.curation) if self.curation else None
            for item in self._readable(url):
                chance = 1.0
                if chances is not None and not isinstance(item.content, Exception):
                    chance = chances.of(item.name)
                eligible += chance > 0
                if rng.random() < chance:
                    items.append(item._replace(name=f"{Path(url).name}/{item.name}"))
        return Group(items, eligible)

    def _readable(self, url: str) -> Iterator[Item]:
        try:
            yield from read_shard(url)
            self._was_read = True
        except UserError as error:
            self._left_out.add(url)
            if is_local(url) or not self._was_read or len(self._left_out) > self.unreadable * len(self.urls):
                raise
            yield Item(f"rest of {url}", error)

    def filters(self) -> str:
        """Say what curation leaves out."""
        return f" that pass {self.curation}" if self.curation else ""


def _webdataset(module: str) -> types.ModuleType:
    try:
        return importlib.import_module(f"webdataset.{module}")
    except ImportError as error:
        raise UserError("Tar shards need webdataset: pip install 'pixio-robot[pretraining]'.") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
