"""Where a LeRobotDataset is: a folder, LeRobot's own folder of recordings, or the hub."""

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from lerobot.datasets import LeRobotDataset
from lerobot.utils.constants import HF_LEROBOT_HOME

from pixio_robot.common.errors import UserError


def dataset_folder(repo_id: str | None, root: Path | None) -> Path:
    """Return the folder of a LeRobotDataset, having downloaded it if it is nowhere on this machine.

    Args:
        repo_id: LeRobot's name of the dataset, `<user>/<name>`; None where `root` holds it.
        root: Its folder, or where to download it to; None is where LeRobot keeps it.

    Raises:
        UserError: Neither is given, or the dataset can be reached neither locally nor on the hub.
    """
    if repo_id is None and root is None:
        raise UserError(
            "demos.root or demos.repo_id must be given: add demos.root=/path/to/a/LeRobotDataset, or "
            "demos.repo_id=<user>/<name> for one on the hub or among LeRobot's own recordings."
        )
    recorded = HF_LEROBOT_HOME / repo_id if repo_id is not None else None
    for folder in (root, recorded if root is None else None):
        if folder is not None and (repo_id is None or (folder / "meta" / "info.json").is_file()):
            return folder
    assert repo_id is not None
    try:
        # One short request first: the hub client retries an unreachable network for most of a minute.
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=5)
        return Path(LeRobotDataset(repo_id, root=root).root)
    except RepositoryNotFoundError as error:
        raise UserError(_unreachable(repo_id, recorded, "the hub does not know it, or asks for a login")) from error
    except HfHubHTTPError as error:
        reason = f"the hub answered {error.response.status_code}"
        raise UserError(_unreachable(repo_id, recorded, reason)) from error
    except Exception as error:  # whatever HTTP library the hub client uses, offline looks different
        raise UserError(_unreachable(repo_id, recorded, f"{type(error).__name__}: {error}")) from error


def _unreachable(repo_id: str, recorded: Path | None, reason: str) -> str:
    return (
        f"The LeRobotDataset {repo_id} is not in {recorded} and could not be fetched from the hub "
        f"({' '.join(reason.split())}): give the folder that holds it as demos.root=/path/to/it, or run `hf auth login` "
        f"where it is private."
    )
