"""Finding a LeRobotDataset by name: among LeRobot's own, on a hub (a small server with its interface), or nowhere."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.formats.lerobot import export_lerobot, import_lerobot
from pixio_robot.demos.formats.lerobot_hub import dataset_folder

NAME = "robots/lift"
COMMIT = "1" * 40
FIND = """
import json, sys
from pathlib import Path
from pixio_robot.common.errors import UserError
from pixio_robot.demos.formats.lerobot_hub import dataset_folder
for name, folder in json.loads(sys.argv[1]):
    try:
        print(json.dumps(str(dataset_folder(name, Path(folder) if folder else None))))
    except UserError as error:
        print(json.dumps(f"error: {error}"))
"""


@pytest.fixture
def dataset(make_store, tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    export_lerobot(make_store(3), folder, NAME, use_videos=False, console=Console(file=StringIO()))
    return folder


@pytest.fixture
def hub(dataset: Path) -> Iterator[str]:
    """Serve the folder as the hub serves the dataset `NAME`, and nothing else."""
    files = {path.relative_to(dataset).as_posix(): path for path in dataset.rglob("*") if path.is_file()}
    reference = {"ref": "refs/tags/v3.0", "name": "v3.0", "targetCommit": COMMIT}
    information = {"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
    tree = [{"type": "file", "path": name, "size": path.stat().st_size, "oid": name} for name, path in files.items()]
    answers: dict[str, object] = {
        f"/api/datasets/{NAME}": information,
        f"/api/datasets/{NAME}/refs": {"branches": [], "converts": [], "tags": [reference]},
        **{f"/api/datasets/{NAME}/revision/{revision}": information for revision in ("v3.0", COMMIT)},
        **{f"/api/datasets/{NAME}/tree/{revision}": tree for revision in ("v3.0", COMMIT)},
    }

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            place = self.path.partition("?")[0]
            name = place.partition("/resolve/")[2].partition("/")[2]
            if place in answers:
                content, status = json.dumps(answers[place]).encode(), 200
            elif place.startswith(f"/datasets/{NAME}/resolve/") and name in files:
                content, status = files[name].read_bytes(), 200
            else:
                content, status = b"{}", 200 if place == "/" else 404
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def find(hub: str, home: Path, *wanted: tuple[str, Path | None]) -> list[str]:
    """Find data sets in a process of its own, since the hub client reads the environment when it is imported.

    Returns:
        For each name and folder the folder that was found, or the mistake after `error: `.
    """
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": ""}
    environment.pop("HF_HUB_OFFLINE", None)
    asked = json.dumps([(name, folder and str(folder)) for name, folder in wanted])
    done = subprocess.run([sys.executable, "-c", FIND, asked], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('"')]


def test_a_dataset_comes_from_the_hub_whole_and_what_the_hub_does_not_have_is_said(hub: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    kept, placed, unknown = find(hub, tmp_path / "home", (NAME, None), (NAME, mine), ("robots/unknown", None))
    assert Path(kept).is_relative_to(tmp_path / "home")
    assert Path(placed) == mine
    for number, folder in enumerate((kept, placed)):
        imported = import_lerobot(Path(folder), tmp_path / f"back_{number}.zarr", console=Console(file=StringIO()))
        assert imported.fingerprint() == DemoStore.open(tmp_path / "demos.zarr").fingerprint()
    assert unknown.startswith("error: The LeRobotDataset robots/unknown is not in")
    assert "the hub does not know it, or asks for a login" in unknown


def test_what_is_on_this_machine_is_not_fetched_and_without_a_network_the_rest_is_said(
    dataset: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    recorded = home / "lerobot" / NAME
    recorded.parent.mkdir(parents=True)
    dataset.rename(recorded)
    by_name, by_folder, missing = find(
        "http://127.0.0.1:1", home, (NAME, None), (NAME, recorded), ("robots/elsewhere", None)
    )
    assert by_name == by_folder == str(recorded)
    assert missing.startswith("error: ")
    assert "could not be fetched from the hub" in missing
    assert dataset_folder(None, recorded) == recorded
    with pytest.raises(UserError, match=r"demos.root or demos.repo_id must be given"):
        dataset_folder(None, None)
