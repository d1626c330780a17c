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
FIND = (
    "import sys; from pathlib import Path; from pixio_robot.demos.formats.lerobot_hub import dataset_folder;"
    "print(dataset_folder(sys.argv[1], Path(sys.argv[2]) if sys.argv[2:] else None))"
)


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


def find(hub: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask in a process of its own: the hub client reads the environment when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": ""}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", FIND, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("into_folder", [False, True])
def test_a_dataset_comes_from_the_hub_whole(hub: str, tmp_path: Path, into_folder: bool) -> None:
    place = [str(tmp_path / "mine")] if into_folder else []
    done = find(hub, tmp_path / "home", NAME, *place)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    assert folder == tmp_path / "mine" if into_folder else folder.is_relative_to(tmp_path / "home")
    imported = import_lerobot(folder, tmp_path / "back.zarr", console=Console(file=StringIO()))
    assert imported.fingerprint() == DemoStore.open(tmp_path / "demos.zarr").fingerprint()


def test_what_the_hub_does_not_have_is_said(hub: str, tmp_path: Path) -> None:
    done = find(hub, tmp_path / "home", "robots/unknown")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "The LeRobotDataset robots/unknown is not in" in last
    assert "the hub does not know it, or asks for a login" in last


def test_without_a_network_it_is_said(tmp_path: Path) -> None:
    done = find("http://127.0.0.1:1", tmp_path / "home", NAME)
    assert done.returncode != 0
    assert "could not be fetched from the hub" in done.stderr.strip().splitlines()[-1]


def test_what_is_on_this_machine_is_not_fetched(dataset: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    recorded = home / "lerobot" / NAME
    recorded.parent.mkdir(parents=True)
    dataset.rename(recorded)
    done = find("http://127.0.0.1:1", home, NAME)
    assert done.stdout.strip() == str(recorded), done.stderr
    assert find("http://127.0.0.1:1", home, NAME, str(recorded)).stdout.strip() == str(recorded)
    assert dataset_folder(None, recorded) == recorded
    with pytest.raises(UserError, match=r"demos.root or demos.repo_id must be given"):
        dataset_folder(None, None)
