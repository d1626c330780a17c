"""What must hold of a LeRobot checkpoint folder before a rollout is worth starting."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import draccus
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.envs import EnvConfig
from lerobot.envs.utils import env_to_policy_features
from lerobot.processor import ProcessorStepRegistry
from lerobot.utils.import_utils import register_third_party_plugins
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file

from pixio_robot.common.errors import UserError, nearest_name, printable
from pixio_robot.common.storage.documents import read_json
from pixio_robot.common.storage.files import check_links
from pixio_robot.common.storage.kept import CHECKSUMS, damage
from pixio_robot.common.worlds import RUN_FILE
from pixio_robot.engine.run_folder import find_run

MODEL_FOLDER = "pretrained_model"
"""What `lerobot-eval --policy.path=` reads, in a checkpoint's folder: averaged weights, config, processors."""

_CHECKPOINT_FILES = (
    "config.json",
    "model.safetensors",
    "policy_preprocessor.json",
    "policy_postprocessor.json",
)


def find_checkpoint(given: Path, output_root: Path, console: Console) -> Path:
    """Return the `pretrained_model` folder that is meant, and say which; what is no run is returned as it is given.

    Args:
        given: Such a folder; or a run's folder or name, or `latest` for the newest run, of which it is the checkpoint that the
            run measured: its best, or else its last.
        output_root: Where runs of train_policy are.
        console: Where it is said.

    Raises:
        UserError: The run has no checkpoint, or there is none.
    """
    run = find_run(given, output_root / "train_policy")
    if run is None:
        return given
    folders = [
        *sorted((run / "checkpoints").glob("[0-9]*")),
        run / "checkpoints" / "last",
        run / "checkpoints" / "best",
    ]
    whole = [folder.resolve().name for folder in folders if (folder / MODEL_FOLDER / "config.json").is_file()]
    if not whole:
        raise UserError(f"{run} has no checkpoint yet: let it go on with resume={run}.")
    checkpoint = run / "checkpoints" / whole[-1] / MODEL_FOLDER
    console.print(f"checkpoint {checkpoint}", highlight=False, soft_wrap=True)
    return checkpoint


def open_checkpoint(checkpoint: Path) -> PreTrainedConfig:
    """Return the policy config of a checkpoint folder in LeRobot's format, without loading weights.

    Raises:
        UserError: The folder is missing, incomplete or damaged, its policy type is not installed, its normalisation
            statistics are not those of its policy, or it would run or read something outside itself.
    """
    missing = [name for name in _CHECKPOINT_FILES if not (checkpoint / name).is_file()]
    if missing:
        raise UserError(_not_a_checkpoint(checkpoint, missing))
    check_links(checkpoint)
    wrong = damage(checkpoint) if (checkpoint / CHECKSUMS).exists() else None
    if wrong is not None:
        raise UserError(f"The checkpoint {checkpoint} cannot be used: {wrong}. Take another one, or a copy of it.")
    register_third_party_plugins()
    config = _read_config(checkpoint)
    for file, step_name, features in (
        ("policy_preprocessor.json", "normalizer_processor", config.input_features),
        ("policy_postprocessor.json", "unnormalizer_processor", config.output_features),
    ):
        steps = _read_steps(checkpoint / file)
        states = [step.get("state_file") for step in steps if step["registry_name"] == step_name]
        if states:  # else a processor of another make
            _check_statistics_fit(checkpoint, config, states[0] or file, features or {})
    return config


def _read_config(checkpoint: Path) -> PreTrainedConfig:
    """Return the config of a policy. LeRobot's own reader leaves a temporary file behind each time."""
    path = checkpoint / "config.json"
    fields = read_json(path)
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise UserError(f"{path} is not a LeRobot policy config: it names no type of policy.")
    policy_type = fields.pop("type")
    known_types = PreTrainedConfig.get_known_choices()
    if policy_type not in known_types:
        raise UserError(
            f"The checkpoint {checkpoint} holds a policy of the unknown type {policy_type!r}; "
            f"install the package that defines it. {nearest_name(policy_type, known_types)}"
        )
    if fields.get("use_peft"):
        raise UserError(
            f"{checkpoint} holds adapters for a policy that lies elsewhere, which is not followed: merge them into it first."
        )
    try:
        config = draccus.decode(PreTrainedConfig.get_choice_class(policy_type), fields)
    except UserError:
        raise
    except Exception as error:  # whatever a policy's config raises about its fields
        reason = printable(" ".join(str(error).split()))[:200]
        raise UserError(f"{path} is not a config of {policy_type} ({reason}).") from error
    config.pretrained_path = checkpoint
    return config


def _read_steps(path: Path) -> list[dict[str, Any]]:
    """Return the steps of a processor that LeRobot builds without importing what the file names.

    Raises:
        UserError: A step is a class of any module, as LeRobot would import and call it, is not registered, or lies
            outside the checkpoint.
    """
    described = read_json(path)
    steps = described.get("steps") if isinstance(described, dict) else None
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise UserError(f"{path} is no processor of LeRobot's: it has no steps.")
    for step in steps:
        name, state = step.get("registry_name"), step.get("state_file")
        if not isinstance(name, str) or name not in ProcessorStepRegistry.list():
            what = f"the class {step['class']}" if name is None and "class" in step else f"the unregistered {name}"
            raise UserError(
                f"{path} was not loaded: one of its steps is {what}, and only steps that LeRobot or an installed plugin "
                f"registered are. Register it (ProcessorStepRegistry.register), and save the checkpoint again."
            )
        if state is not None and (not isinstance(state, str) or Path(state).name != state):
            raise UserError(
                f"{path} was not loaded: its step {name} keeps its state outside the checkpoint, in {state!r}."
            )
        if not isinstance(step.get("config", {}), dict) or "trust_remote_code" in str(step.get("config")):
            raise UserError(f"{path} was not loaded: its step {name} is set up to run code from elsewhere.")
    return steps


def _check_statistics_fit(
    checkpoint: Path, config: PreTrainedConfig, file: str, features: Mapping[str, PolicyFeature]
) -> None:
    """Check that what the policy normalises has statistics of its size; LeRobot would leave it as it is."""
    modes: dict[str, NormalizationMode] = getattr(config, "normalization_mapping", {})
    path = checkpoint / file
    try:
        statistics = load_file(path) if path.suffix == ".safetensors" and path.is_file() else {}
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({error}): copy the whole pretrained_model folder again.") from error
    for name, feature in features.items():
        if feature.type is FeatureType.VISUAL or modes.get(feature.type.value) in (None, NormalizationMode.IDENTITY):
            continue
        numbers = {key: value for key, value in statistics.items() if not key.endswith(".count")}
        shapes = {tuple(value.shape) for key, value in numbers.items() if key.rpartition(".")[0] == name}
        if tuple(feature.shape) not in shapes:
            found = f"are of shape {sorted(shapes)[0]}" if shapes else "are missing"
            raise UserError(
                f"The normalisation statistics of {name} in {path.name} {found}, but the policy's "
                f"{name} is of shape {tuple(feature.shape)}: the checkpoint {checkpoint} was put together from two; "
                f"copy the whole pretrained_model folder of one run."
            )


def check_fit(config: PreTrainedConfig, env_config: EnvConfig) -> None:
    """Check that the environment offers every observation that the policy reads, and takes its actions.

    Raises:
        UserError: A camera, an image size, the state or the action differs, or the policy does not know the task; the
            message lists every difference.
    """
    offered = env_to_policy_features(env_config)
    wanted = {**(config.input_features or {}), **(config.output_features or {})}
    differences = []
    for name, feature in wanted.items():
        if name not in offered:
            names = ", ".join(key for key, other in offered.items() if other.type is feature.type) or "none"
            differences.append(f"the policy reads {name}, the environment gives {names}")
        elif tuple(feature.shape) != tuple(offered[name].shape):
            ours, theirs = tuple(feature.shape), tuple(offered[name].shape)
            differences.append(f"{name} is {ours} in the policy and {theirs} in the environment")
    known = getattr(config, "tasks", ())
    differences += [
        f"the policy was trained on {len(known)} tasks, and {sentence!r} is none of them"
        for sentence in task_sentences(env_config)
        if known and sentence not in known
    ]
    if differences:
        policy = f"The checkpoint {config.pretrained_path}" if config.pretrained_path else "A policy of these data"
        raise UserError(
            f"{policy} does not fit the environment {env_config.type!r}: "
            f"{'; '.join(differences)}. Evaluate it on the environment it was trained on, or set the "
            "environment's cameras and sizes to match."
        )


def task_sentences(env_config: EnvConfig) -> list[str]:
    """Return the sentences of an environment's tasks, of which an episode's is at its seed modulo their number."""
    return list(getattr(env_config, "task_descriptions", ()))


def check_seeds(checkpoint: Path, seeds: Sequence[int], demonstration_seeds: Collection[int]) -> None:
    """Check that no seed of the evaluation was seen in training.

    Args:
        checkpoint: Checkpoint folder; the demonstration seeds noted in its `pixio_run.json` count, too.
        seeds: Seeds of the evaluation.
        demonstration_seeds: Seeds of the demonstrations, as far as the caller knows them.

    Raises:
        UserError: There are no seeds, a seed comes twice, or a seed belongs to a demonstration.
    """
    if not seeds:
        raise UserError("There are no episodes to run: ask for at least one.")
    if len(set(seeds)) != len(seeds):
        raise UserError("An evaluation seed comes twice: every episode needs its own seed.")
    seen = set(demonstration_seeds).union(run_information(checkpoint).get("demonstration_seeds", ()))
    shared = sorted(seen.intersection(seeds))
    if shared:
        raise UserError(
            f"{len(shared)} evaluation seeds belong to demonstrations (the first is {shared[0]}): success "
            f"on them says nothing. Choose seeds above {max(seen)}, for example from 100000 on."
        )


def run_information(checkpoint: Path) -> dict:
    """Return what our training noted beside the weights: environment, versions, demonstrations; nothing of others'."""
    path = checkpoint / RUN_FILE
    information = read_json(path) if path.is_file() else {}
    if not isinstance(information, dict):
        raise UserError(f"{path} is damaged: it says nothing of a run.")
    return information


def _not_a_checkpoint(checkpoint: Path, missing: Sequence[str]) -> str:
    if not checkpoint.is_dir():
        message = f"There is no checkpoint folder {checkpoint}"
    else:
        message = f"{checkpoint} is not a checkpoint in LeRobot's format ({', '.join(missing)} missing)"
    inner = (checkpoint / "pretrained_model", checkpoint / "checkpoints" / "last" / "pretrained_model")
    hint = next((str(path) for path in inner if (path / "config.json").is_file()), None)
    return f"{message}: give {hint or 'the pretrained_model folder that a training run wrote'}."
