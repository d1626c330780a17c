"""Where pretrained weights come from: this package, the hub's local cache, or the hub."""

import sys
from pathlib import Path

import huggingface_hub
import timm
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from pixio_robot.common.errors import UserError

# Formats in the order we prefer them; a repository may hold several of the same weights.
_FORMATS = ("*.safetensors", "*.pth", "*.bin")


def pretrained_weights(name: str, weights: str = "pretrained") -> Path:
    """Return the file or folder that holds a timm model's pretrained weights, downloading them if need be.

    What is downloaded is of one commit of its repository, which the terminal names together with the licence.

    Args:
        name: A timm model name, Pixio variants included.
        weights: `pretrained`, or `pretrained@<revision>` for a commit, tag or branch of the hub's repository.

    Raises:
        UserError: No weights exist for this name or revision, or they can be reached neither locally nor on the hub.
    """
    revision = weights.partition("@")[2] or None
    source = timm.get_pretrained_cfg(name)
    if source is not None and source.file:
        if revision is not None:
            raise UserError(
                f"The weights of {name} ship with this package, in one revision: set encoder.weights=pretrained."
            )
        return Path(source.file)
    if source is None or not source.hf_hub_id:
        raise UserError(
            f"No pretrained weights exist for {name}; pretrain it with scripts/pretrain_encoder.py and pass "
            f"encoder.weights=<file>, or use encoder.weights=random."
        )
    hub_id = source.hf_hub_id
    cached = cached_snapshot(hub_id, revision)
    if cached is not None:
        print(f"{name}: {hub_id} from the local cache, revision {cached.name}", file=sys.stderr)
        return cached
    try:
        # One short request first: the hub client retries an unreachable network for most of a minute.
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=5)
        found = huggingface_hub.model_info(hub_id, revision=revision)
        files = [file.rfilename for file in found.siblings or ()]
        chosen = next(pattern for pattern in _FORMATS if any(file.endswith(pattern[1:]) for file in files))
        folder = Path(huggingface_hub.snapshot_download(hub_id, revision=found.sha, allow_patterns=[chosen]))
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = "the hub asks for a login" if status in (401, 403) else f"the hub answered {status}"
        raise UserError(_three_ways(name, hub_id, reason)) from error
    except StopIteration:
        raise UserError(_three_ways(name, hub_id, "the repository holds no weights file")) from None
    except Exception as error:  # whatever HTTP library the hub client uses, offline looks different
        raise UserError(_three_ways(name, hub_id, f"no network ({type(error).__name__})")) from error
    stated = [tag.removeprefix("license:") for tag in found.tags or () if tag.startswith("license:")]
    licence = source.license or ", ".join(stated) or "not stated"
    print(
        f"{name}: fetched from {hub_id}, licence {licence}, revision {found.sha} "
        f"(encoder.weights=pretrained@{found.sha} keeps to it)",
        file=sys.stderr,
    )
    return folder


def with_commit(name: str, weights: str) -> str:
    """Return `pretrained` with the commit that the hub's weights of a model are of on this machine; others as they are."""
    source = timm.get_pretrained_cfg(name)
    if source is None or source.file or not source.hf_hub_id:
        return weights
    cached = cached_snapshot(source.hf_hub_id, weights.partition("@")[2] or None)
    return weights if cached is None else f"pretrained@{cached.name}"


def cached_snapshot(hub_id: str, revision: str | None = None) -> Path | None:
    """Return the folder of a repository's weights in the hub's local cache, or None where there are none."""
    try:
        folder = Path(huggingface_hub.snapshot_download(hub_id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if any(any(folder.glob(pattern)) for pattern in _FORMATS) else None


def _three_ways(name: str, hub_id: str, reason: str) -> str:
    licence = ", licence FAIR Noncommercial" if name.startswith("pixio_") else ""
    return (
        f"The pretrained weights of {name} ({hub_id}{licence}) could not be fetched: {reason}. "
        f"Three ways to get them: (1) online, run `hf auth login` and `hf download {hub_id}` once, after which "
        f"the local cache serves offline too; (2) download the weights file on another machine and pass "
        f"encoder.weights=/path/to/model.safetensors; (3) use the weights that ship with this package, "
        f"encoder=pixio_tiny, or encoder.weights=random to try the pipeline."
    )
