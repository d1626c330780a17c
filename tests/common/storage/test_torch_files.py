"""TorchScript files that would reach other files when they are loaded or run: they are refused, and nothing is written."""

import zipfile
from pathlib import Path

import pytest
import torch
from archives import members_of, name_of, written
from torch import Tensor, nn

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.torch_files import open_torchscript
from pixio_robot.encoders import EncoderConfig, VisionEncoder


class Marks(nn.Module):
    """Knows a file that it should not."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark = mark


class Saves(Marks):
    def forward(self, images: Tensor) -> Tensor:
        torch.save(images, self.mark)
        return images


class SavesElsewhere(Marks):
    """Not in `forward`, but where something else calls it."""

    @torch.jit.export
    def reset(self, images: Tensor) -> None:
        if images.shape[0] > 0:
            for _ in range(2):
                torch.save(images, self.mark)

    def forward(self, images: Tensor) -> Tensor:
        return images


class SavesWhenLoaded(Marks):
    """Its state is set while torch loads it."""

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.mark, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.mark, self.training = state[0], state[1]
        torch.save(torch.zeros(1), self.mark)

    def forward(self, images: Tensor) -> Tensor:
        return images


class ReadsAFile(Marks):
    def forward(self, images: Tensor) -> Tensor:
        return images + torch.from_file(self.mark, True, 4).sum()


class Prints(Marks):
    def forward(self, images: Tensor) -> Tensor:
        print("\x1b[2J", self.mark)
        return images


@pytest.mark.parametrize("kind", [Saves, SavesElsewhere, SavesWhenLoaded, ReadsAFile, Prints])
def test_torchscript_that_reaches_files_is_refused(kind: type[nn.Module], tmp_path: Path) -> None:
    path = tmp_path / "encoder.pt"
    torch.jit.script(kind(str(tmp_path / "mark"))).save(str(path))
    for load in (open_torchscript, lambda path: VisionEncoder(EncoderConfig("torchscript", str(path), image_size=32))):
        with pytest.raises(UserError, match=r"encoder\.pt was not loaded: it holds"):
            load(path)
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "call",
    [
        'getattr(torch, "save")',
        'getattr(torch, "sa" "ve")',
        'getattr(torch, "\\163ave")',
        "torch . \\\n save",
        "torch.save",
    ],
)
def test_an_operator_that_runs_at_load_is_found_however_it_is_written(call: str, tmp_path: Path) -> None:
    plain, path, mark = tmp_path / "plain.pt", tmp_path / "evil.pt", tmp_path / "mark"
    torch.jit.script(SavesWhenLoaded(str(mark))).save(str(plain))
    members = members_of(plain)
    code = name_of(members, ".py")
    # A new number for the module's file: torch keeps no code of an earlier one.
    members[code] = members[code].replace(b"torch.save", call.encode())
    written(path, [*members.items()])
    plain.unlink()
    with pytest.raises(UserError, match=r"evil\.pt was not loaded"):
        open_torchscript(path)
    assert not mark.exists()


def test_a_traced_module_with_the_inputs_that_torch_keeps_of_it_is_loaded(tmp_path: Path) -> None:
    model, images = nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8)
    torch.jit.save(torch.jit.trace(model, images), tmp_path / "encoder.pt")
    assert "encoder/traced_inputs.pkl" in zipfile.ZipFile(tmp_path / "encoder.pt").namelist()
    torch.testing.assert_close(open_torchscript(tmp_path / "encoder.pt")(images), model(images))


def test_compressed_members_may_not_grow_to_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    torch.jit.script(nn.Identity()).save(str(path))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        root = archive.namelist()[0].partition("/")[0]
        with archive.open(f"{root}/extra/zeros", "w") as member:
            for _ in range(200):
                member.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError, match="larger than the file can hold"):
        open_torchscript(path)
