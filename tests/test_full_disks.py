"""Everything that writes meets a full disk, one without inodes and one that is read-only: a sentence, and nothing half done."""

import json
from pathlib import Path

import pytest
from forked_scripts import run_python
from small_jobs import WRITERS, make_inputs

HELPER = str(Path(__file__).parent / "helpers" / "small_disk.py")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder


def on_disk(options: str, name: str, inputs: Path, folder: Path) -> dict:
    done = run_python(HELPER, options, name, str(inputs), str(folder / "disk"), cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_a_sentence_and_leaves_nothing_half_done(name: str, inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = on_disk("size=400m", name, inputs, tmp_path / "whole")
    assert whole["code"] == 0, whole["said"]
    pages = whole["used"] // 4096
    sizes = [f"size={max(int(pages * share), 2) * 4}k" for share in (0.05, 0.4, 0.9)]
    n_refused = 0
    for number, options in enumerate([*sizes, "nr_inodes=6", "ro"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = on_disk(options, name, inputs, folder)
        explained = f"{name} on {options}: {found}"
        assert found["code"] == 2 or (found["code"] == 0 and found["finished"] == whole["finished"]), explained
        n_refused += found["code"] == 2
        if found["code"] == 2:
            errors = [line for line in found["said"].splitlines() if line.startswith("error: ")]
            assert len(errors) == 1, explained
            # h5py prints what its objects meet as they go, and nothing keeps it from that.
            assert "Traceback" not in found["said"] or name.endswith("to demos.hdf5"), explained
            assert any(word in errors[0] for word in ("full", "may not", "cannot be", "Cannot", "free", "left")), (
                explained
            )
        assert found["finished"].items() <= whole["finished"].items(), explained
        assert not [path for path in found["left"] if "/." in path], explained
        assert found["again"] == 0, explained
        lasting = {path for path in whole["left"] if "/tensorboard/" not in path}  # whose names have the time
        assert set(found["left at last"]) >= lasting or name == "evaluating", explained
    assert n_refused >= 3
