"""A job in parts, each on whatever machine has time: `part=1 parts=4` to `part=4 parts=4`, and then `parts=4`, which joins them.

outputs/demos.zarr                what one run would have made, value by value, once the parts are joined
outputs/demos.zarr.parts/1-of-4/  a part: a slice of the job's files or seeds; its part.json, written last, says which,
                         2-of-4/  and with what settings and software it was made
"""

import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixio_robot.common.errors import UserError, printable
from pixio_robot.common.settings import Count, settings
from pixio_robot.common.storage.documents import read_json
from pixio_robot.common.storage.files import write_json
from pixio_robot.common.storage.kept import only_one
from pixio_robot.common.versions import software_versions

log = logging.getLogger(__name__)

_FILE = "part.json"
_OF_THE_MACHINE = ("platform", "cpu")


@settings(kw_only=True)
class Parts:
    """Which part of its work a run of a job does."""

    part: Count | None = None
    """Of `parts`, from 1: a slice of the files or seeds, as one job of an array of a cluster's."""
    parts: Count | None = None
    """How many parts there are; without part=, when all are there, they are joined. Null does everything in one run."""

    def __post_init__(self) -> None:
        """Refuse a part that there is not."""
        if self.part is not None and (self.parts is None or self.part > self.parts):
            raise UserError(f"part={self.part} must be one of 1 to parts, and parts is {self.parts or 'not given'}.")

    def of(self, output: Path, items: Sequence[Any], made_by: Mapping[str, Any], unit: int = 1) -> "PartsOfOutput":
        """Return the parts of one output.

        Args:
            output: What one run would make; the parts lie beside it.
            items: What the job does one after the other: names of files, or seeds.
            made_by: Plain values on which the result depends, but for versions of software, which are added.
            unit: So many items that follow each other stay together.

        Raises:
            UserError: There are more parts than items.
        """
        assert self.parts is not None
        if self.parts > -(-len(items) // unit):
            together = f" in groups of {unit}" if unit > 1 else ""
            raise UserError(
                f"parts={self.parts} is more than there is to share out ({len(items)}{together}): ask for fewer."
            )
        return PartsOfOutput(output, self.part, self.parts, items, made_by, unit)


class PartsOfOutput:
    """The parts that together are one output; see `Parts.of`."""

    def __init__(
        self, output: Path, part: int | None, parts: int, items: Sequence[Any], made_by: Mapping[str, Any], unit: int
    ) -> None:
        output = output.absolute()  # `.` has no name
        self._folder, self._part, self._parts, self._items = (
            output.with_name(f"{output.name}.parts"),
            part,
            parts,
            items,
        )
        versions = {name: version for name, version in software_versions().items() if name not in _OF_THE_MACHINE}
        self._made_by = json.loads(json.dumps({**made_by, **versions}))  # as it is read again
        groups = -(-len(items) // unit)
        bounds = [groups * number // parts * unit for number in range(parts + 1)]
        self._slices = [items[start:stop] for start, stop in itertools.pairwise(bounds)]

    def folder(self, part: int) -> Path:
        """Return the folder of a part."""
        return self._folder / f"{part}-of-{self._parts}"

    def make(self, make: Callable[[Sequence[Any], Path], None]) -> Path:
        """Do the part that this run was asked for, unless it is there.

        Args:
            make: Is given the items and the folder, in which an earlier run may have left something unfinished.

        Raises:
            UserError: It is there, made with other settings or software.
        """
        assert self._part is not None
        folder = self.folder(self._part)
        with only_one(folder):
            if (folder / _FILE).exists():
                self._check(self._part)
                log.warning("%s is there already, whole", folder)
            else:
                make(self._slices[self._part - 1], folder)
                record = {"part": self._part, "parts": self._parts, "made_by": self._made_by}
                write_json(folder / _FILE, record | {"items": list(self._slices[self._part - 1])})
        return folder

    def joined(self) -> list[Path]:
        """Return the folders of all parts, in order, when all are there, and each item is in one of them.

        Raises:
            UserError: A part is missing or unfinished, was made otherwise than this run would make it, or has what is
                another's.
        """
        absent = [number for number in range(1, self._parts + 1) if not (self.folder(number) / _FILE).is_file()]
        if absent:
            names = ", ".join(self.folder(number).name for number in absent)
            begun = [f"{self.folder(number).name} was begun" for number in absent if self.folder(number).is_dir()]
            others = sorted(found.parent.name for found in self._folder.glob(f"*/{_FILE}"))
            there = "; ".join([*begun, f"there: {', '.join(others) or 'nothing'}"])
            raise UserError(
                f"{self._folder} lacks {names} ({there}): run the same command with part={absent[0]} "
                f"parts={self._parts} for each, then this again."
            )
        holder: dict[Any, int] = {}
        for number in range(1, self._parts + 1):
            for item in self._check(number):
                if holder.setdefault(item, number) != number:
                    raise UserError(
                        f"{self.folder(holder[item])} and {self.folder(number)} both hold {printable(str(item))}: parts must "
                        f"not overlap; delete the one that is wrong and make it again."
                    )
        lost = [item for item in self._items if item not in holder]
        if lost:
            raise UserError(
                f"No part in {self._folder} holds {printable(str(lost[0]))}"
                f"{f' and {len(lost) - 1} more' if lost[1:] else ''}: delete it, and make the parts again."
            )
        return [self.folder(number) for number in range(1, self._parts + 1)]

    def _check(self, number: int) -> list[Any]:
        """Return the items of a part that is there and was made as this run would make it."""
        file = self.folder(number) / _FILE
        record = read_json(file)
        match record:
            case {"part": int(part), "parts": int(parts), "made_by": dict(made_by), "items": list(items)} if all(
                isinstance(item, int | str) for item in items
            ):
                pass
            case _:
                raise UserError(f"{file} is damaged: it describes no part; delete its folder, and make the part again.")
        if (part, parts) != (number, self._parts):
            raise UserError(
                f"{file} is that of part {part} of {parts}, in the folder of another: put it where it belongs."
            )
        differences = [
            f"{name}={made_by.get(name)} there and {self._made_by.get(name)} here"
            for name in made_by | self._made_by
            if made_by.get(name) != self._made_by.get(name)
        ]
        if differences:
            raise UserError(
                f"{file.parent} was made otherwise than this command would make it ({printable('; '.join(differences))}): give "
                "the settings that the parts were made with, or delete that folder and make the part again."
            )
        return items
