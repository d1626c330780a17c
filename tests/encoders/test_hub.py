"""Weights of the hub: one commit, named with its licence when it is fetched, and kept to where the config names it."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from pytest import CaptureFixture, MonkeyPatch, raises

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import EncoderConfig, VisionEncoder
from pixio_robot.encoders.hub import pretrained_weights, with_commit

COMMIT = "1234567890abcdef1234567890abcdef12345678"
REPOSITORY = "facebook/pixio-vitb16"


def cached(folder: Path, commit: str) -> Path:
    """Lay out a downloaded commit as the hub's client does."""
    snapshot = folder / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    return snapshot


def test_what_is_fetched_is_one_commit_and_said(
    monkeypatch: MonkeyPatch, tmp_path: Path, capsys: CaptureFixture[str]
) -> None:
    asked: list[str | None] = []

    def snapshot_download(
        hub_id: str, *, revision: str | None = None, local_files_only: bool = False, **_: object
    ) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("nothing here")
        asked.append(revision)
        return str(cached(tmp_path, str(revision)))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with hub() as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub, "model_info", huggingface_hub.HfApi(endpoint=address).model_info)
        folder = pretrained_weights("pixio_vitb16", "pretrained@v1")
    assert folder.name == COMMIT
    assert asked == [COMMIT]
    said = capsys.readouterr().err
    assert f"fetched from {REPOSITORY}, licence fair-noncommercial, revision {COMMIT}" in said
    assert f"encoder.weights=pretrained@{COMMIT}" in said


@contextlib.contextmanager
def hub() -> Iterator[str]:
    """A hub that knows one repository and the tag v1 of it."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            known = self.path.startswith(f"/api/models/{REPOSITORY}/revision/v1")
            content = {"id": REPOSITORY, "sha": COMMIT, "tags": [], "siblings": [{"rfilename": "model.safetensors"}]}
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(content if known else {"error": "unknown"}).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_named_revision_is_kept_to(monkeypatch: MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    snapshot = cached(tmp_path, COMMIT)
    assert pretrained_weights("pixio_vitb16", f"pretrained@{COMMIT}") == snapshot
    with raises(UserError, match="could not be fetched"):
        VisionEncoder(EncoderConfig("pixio_vitb16", weights=f"pretrained@{'0' * 40}"))


def test_the_commit_in_use_is_said_and_named_in_checkpoints(
    monkeypatch: MonkeyPatch, tmp_path: Path, capsys: CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    references = cached(tmp_path, COMMIT).parents[1] / "refs"
    references.mkdir()
    (references / "main").write_text(COMMIT)
    pretrained_weights("pixio_vitb16")
    assert f"from the local cache, revision {COMMIT}" in capsys.readouterr().err
    assert with_commit("pixio_vitb16", "pretrained") == f"pretrained@{COMMIT}"
    assert with_commit("pixio_tiny16", "pretrained") == "pretrained"  # shipped


def test_shipped_weights_have_no_revisions() -> None:
    with raises(UserError, match="ship with this package"):
        VisionEncoder(EncoderConfig("pixio_tiny16", weights="pretrained@main"))
