"""Hydra: every choice of every group composes; wrong choices and keys get one sentence and exit code 2."""

from pathlib import Path

import hydra
from forked_scripts import run_script
from omegaconf import OmegaConf
from pytest import fixture, mark, raises
from torch import device

from pixio_robot.cli.entry_points import CONFIG_FOLDER, check_overrides
from pixio_robot.common.errors import UserError
from pixio_robot.encoders import EncoderConfig
from pixio_robot.encoders.vision_encoder import build_backbone
from pixio_robot.environments import env_config_from
from pixio_robot.training import DemosConfig, EvaluationConfig, TrainerConfig

CHOICES = [
    (group.name, choice.stem)
    for group in sorted(CONFIG_FOLDER.iterdir())
    if group.is_dir() and group.name not in ("distillation", "images", "pretraining", "robot")  # of other entry points
    for choice in sorted(group.glob("*.yaml"))
]


@mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_fits_its_dataclass(group: str, choice: str) -> None:
    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        cfg = hydra.compose("train_policy", [f"{group}={choice}"])
    fields = OmegaConf.to_container(cfg)
    assert isinstance(fields, dict)
    EvaluationConfig(**fields["evaluation"])
    if group == "encoder" and choice == "torchscript":
        assert EncoderConfig(**fields["encoder"]).name == "torchscript"
    elif group == "encoder":
        with device("meta"):
            assert build_backbone(EncoderConfig(**fields["encoder"]).name, "random").num_features > 0
    elif group == "env":
        assert env_config_from(fields["env"]).features
    elif group == "demos":
        DemosConfig(**fields["demos"])
    elif group == "trainer":
        TrainerConfig(**fields["trainer"])
    else:
        assert fields["policy"]["type"].startswith("pixio_")


@mark.parametrize(
    ("override", "message"),
    [
        ("encoder=pixio_vittl", "Unknown encoder 'pixio_vittl'. Did you mean 'pixio_vitl'?"),
        ("encoder=pixio_tiny,resnet81", "Unknown encoder 'resnet81'. Did you mean 'resnet18'?"),
        ("trainer.stepz=3", "Unknown key 'trainer.stepz'. Did you mean 'trainer.steps'?"),
        ("sede=3", "Unknown key 'sede'. Did you mean 'seed'?"),
        ("trainer.steps=[", "Cannot read the command line"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    with raises(UserError) as caught:
        check_overrides("train_policy", [override])
    assert message in str(caught.value)


def test_right_overrides_pass() -> None:
    check_overrides(
        "train_policy", ["encoder=pixio_vitl", "encoder.weights=random", "seed=0,1,2", "+policy.kl_weight=5"]
    )


@fixture(scope="module")
def clean_directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("elsewhere")


@mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train_policy.py", ["encoder=pixio_vitx"], "Unknown encoder 'pixio_vitx'"),
        ("train_policy.py", ["demos=lerobot"], "demos.root or demos.repo_id must be given"),
        ("train_policy.py", ["resume=nowhere"], "There is no run at"),
        ("train_policy.py", ["env.task=Lyft"], "Lift"),
        ("train_policy.py", ["env.camera_names=[agentvew]"], "agentview"),
        ("train_policy.py", ["env.image_size=100"], "divisible by 16"),
        ("train_policy.py", ["encoder.weights=nowhere.pth"], "No encoder weights at nowhere.pth"),
        ("export_torchscript.py", ["checkpoint=nowhere"], "nowhere"),
        ("run_policy.py", ["robot=lerobt"], "Did you mean 'lerobot'"),
        ("run_policy.py", ["artifact=nowhere.pt"], "There is no file nowhere.pt"),
        ("run_policy.py", ["server=ws://127.0.0.1:1"], "No policy from ws://127.0.0.1:1"),
        ("serve_policy.py", ["artifact=nowhere.pt", "certificate=a.pem"], "TLS needs both"),
    ],
)
def test_scripts_answer_mistakes_with_a_sentence_and_exit_code_2(
    script: str, arguments: list[str], message: str, clean_directory: Path
) -> None:
    done = run_script(script, *arguments, cwd=clean_directory)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_perturbations_are_chosen_on_the_command_line() -> None:
    check_overrides("evaluate_policy", ["checkpoint=somewhere", "env.perturbation=light"])


def test_another_set_of_rows_is_explained_and_works_as_explained() -> None:
    with raises(
        UserError, match=r"entries that encoders does not have.*'~encoders' '\+encoders=\{a:\{name:resnet18\}\}'"
    ):
        check_overrides("benchmark_encoders", ["encoders={a:{name:resnet18}}"])
    check_overrides("benchmark_encoders", ["~encoders", "+encoders={a:{name:resnet18}}"])
