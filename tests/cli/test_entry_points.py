"""Hydra: every choice of every group composes into settings; the defaults are those of the settings; runs, sweeps and flags."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from forked_scripts import ROOT, run_python, run_script
from jobs import composed
from pytest import fixture, mark, raises
from torch import device

from pixio_robot.cli.command_line import CommandLine, parse
from pixio_robot.cli.composition import check
from pixio_robot.cli.entry_points import load_job
from pixio_robot.cli.explanation import keys_of, settings_page
from pixio_robot.cli.jobs import CONFIG_FOLDER, job_files
from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, Switch, Whole, fields_of, look_up, settings_in
from pixio_robot.encoders.backbones import build_backbone
from pixio_robot.environments import env_config_from
from pixio_robot.training.policy.building import check_policy

JOBS = sorted(job_files())
CHOICES = [
    (group.name, choice.stem)
    for group in sorted(CONFIG_FOLDER.iterdir())
    if group.is_dir()
    and group.name not in ("distillation", "pretraining", "protocol", "robot")  # of other entry points
    for choice in sorted(group.rglob("*.yaml"))
]
NEEDED = {"store": ["demos.path=a.zarr"], "lerobot": ["demos.root=a"], "torchscript": ["encoder.weights=a.pt"]}


@mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_into_settings(group: str, choice: str) -> None:
    job: Any = load_job("train_policy").read([f"{group}={choice}", *NEEDED.get(choice, [])])
    if group == "encoder" and choice != "torchscript":
        with device("meta"):
            assert build_backbone(job.encoder.name, "random").num_features > 0
    elif group == "env":
        assert env_config_from(job.env).features
    elif group == "policy":
        check_policy(job.policy, job.encoder)


@mark.parametrize("name", JOBS)
def test_the_files_say_only_what_differs_and_every_key_is_explained(name: str) -> None:
    job = load_job(name)
    for key in keys_of(job, CommandLine()):
        assert key.explanation, key.name
    assert "hydra" not in (job.configs / f"{name}.yaml").read_text()
    assert len([line for line in job.explanation.splitlines() if line.startswith("uv run scripts/")]) == 3


def plain_numbers(kind: type, name: str = "") -> list[str]:
    """Return the fields that would take text for a number, or a number for a switch."""
    found = []
    for field in fields_of(kind):
        annotation = look_up(kind, (field,)).annotation
        found += [f"{name}{field}"] if annotation in (int, float, bool) else []
        found += [inner for group in settings_in(annotation) for inner in plain_numbers(group, f"{name}{field}.")]
    return found


@mark.parametrize("name", JOBS)
def test_every_number_is_strict(name: str) -> None:
    assert plain_numbers(load_job(name).settings) == []
    assert Count is not int and Whole is not int and Switch is not bool


def test_the_examples_of_every_job_are_right_command_lines() -> None:
    for name in JOBS:
        job = load_job(name)
        for line in job.explanation.splitlines():
            if line.startswith("uv run"):
                words = [word for word in shlex.split(line)[3:] if word != ">" and word != "doctor.txt"]
                job.read([word.replace("<", "").replace(">", "") for word in words])


def test_the_page_of_settings_is_current() -> None:
    assert (CONFIG_FOLDER / "README.md").read_text(encoding="utf-8") == settings_page(
        load_job(name) for name in JOBS
    ), "run: uv run scripts/list.py settings > configs/README.md"


@fixture(scope="module")
def clean_directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("elsewhere")


@mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train_policy.py", ["encoder=pixio_vitx"], "Unknown encoder 'pixio_vitx'"),
        ("train_policy.py", ["resume=nowhere"], "no run"),
        ("train_policy.py", ["env.image_size=100"], "divisible by 16"),
        ("train_policy.py", ["policy.dim_model=7"], "must be a multiple of policy.n_heads=4"),
        ("train_policy.py", ["policy.chunk_size=abc"], "policy.chunk_size must be a whole number, got 'abc'"),
        ("train_policy.py", ["env.image_size=abc"], "env.image_size must be a whole number, got 'abc'"),
        ("train_policy.py", ["policy.dim_modell=64"], "Did you mean 'dim_model'"),
        ("train_policy.py", ["encoder.weights=nowhere.pth"], "No encoder weights at nowhere.pth"),
        ("export.py", ["checkpoint=nowhere"], "nowhere"),
        ("run_policy.py", ["artifact=nowhere.pt"], "There is no file nowhere.pt"),
        ("run_policy.py", ["server=ws://127.0.0.1:1"], "No policy from ws://127.0.0.1:1"),
        ("serve_policy.py", ["artifact=nowhere.pt", "certificate=a.pem"], "TLS needs both"),
        ("pretrain_encoder.py", ["images.path=nowhere", "pretraining.batch_size=7"], "cannot be split"),
        (
            "collect_demos.py",
            ["env.episode_length=0"],
            "env.episode_length must be a whole number of at least 1, got 0",
        ),
        (
            "evaluate_policy.py",
            ["checkpoint=nowhere", "workers=0"],
            "workers must be a whole number of at least 1, got 0",
        ),
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
    runs = [path for path in clean_directory.glob("outputs/*/*") if not path.name.startswith(".")]
    assert runs == []


def test_hydras_flags_with_values(tmp_path: Path) -> None:
    shown = run_script("train_policy.py", "--cfg", "job", "trainer.steps=3", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert yaml.safe_load(shown.stdout)["trainer"]["steps"] == 3
    assert yaml.safe_load(shown.stdout)["trainer"]["warmup_steps"] == 100  # a default, which no file says
    part = run_script("train_policy.py", "--cfg=job", "--package", "evaluation", cwd=tmp_path)
    assert yaml.safe_load(part.stdout.partition("\n")[2])["episodes"] == 50
    (tmp_path / "mine" / "encoder").mkdir(parents=True)
    (tmp_path / "mine" / "encoder" / "own.yaml").write_text("name: pixio_vitb16\nweights: random\n")
    own = run_script("train_policy.py", "--config-dir", "mine", "encoder=own", "-c", "job", cwd=tmp_path)
    assert yaml.safe_load(own.stdout)["encoder"]["name"] == "pixio_vitb16"
    assert "Defaults Tree" in run_script("train_policy.py", "--info", "defaults-tree", cwd=tmp_path).stdout
    assert "Hydra 1" in run_script("train_policy.py", "--version", cwd=tmp_path).stdout
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_sweep_checks_every_value_and_runs_each(tmp_path: Path) -> None:
    wrong = run_script("doctor.py", "--multirun", "output_root=a,null", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "output_root must be a path, got null" in wrong.stderr
    job: Any = load_job("train_policy")
    swept = parse(["-m", "seed=0,1,abc"], job.settings)
    with raises(UserError, match="seed must be a whole number of at least 0, got 'abc'"):
        check(job.name, job.settings, swept.overrides)
    code = (
        'import sys; from pixio_robot.cli.entry_points import load_job; import dataclasses; job = load_job("doctor"); '
    )
    code += "dataclasses.replace(job, main=lambda settings: print(settings.output_root))()"
    done = run_python("-c", code, "-m", "output_root=a,b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"a", "b"} <= set(done.stdout.split())


def test_help_and_wrong_choices_take_a_moment(tmp_path: Path) -> None:
    """Neither torch nor LeRobot is imported before the command line has been checked."""
    for arguments, code, said in (
        (["--help"], 0, "trainer.steps=1000\n      Optimiser steps. [a whole number of at least 1]"),
        (["policy=bc", "--help"], 0, "policy.input_norm=layer"),
        (["env.task=Lyft"], 2, "unknown task 'Lyft': did you mean 'Lift'?"),
        (["env.robot=Pandaa"], 2, "unknown robot 'Pandaa': did you mean 'Panda'?"),
        (["env.camera_names=[agentvew]"], 2, "did you mean 'agentview'?"),
        (["env=metaworld", "env.task=drawer-opn-v3"], 2, "did you mean 'drawer-open-v3'?"),
    ):
        command = [sys.executable, "-X", "importtime", str(ROOT / "scripts" / "train_policy.py"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert said in done.stdout + done.stderr
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}
        assert "yaml" in imported and not {"torch", "timm", "lerobot.envs", "mujoco"} & imported


def test_another_set_of_rows_is_explained_and_works_as_explained() -> None:
    job: Any = load_job("evaluate_encoder")
    with raises(UserError, match=r"entries that own does not have.*'~own' '\+own=\{a:\{name:resnet18\}\}'"):
        job.read(["own={a:{name:resnet18}}"])
    read = job.read(["~own", "+own={a:{name:resnet18}}"])
    assert {label: encoder.name for label, encoder in read.own.items()} == {"a": "resnet18"}


def test_keys_that_are_not_there_are_added(tmp_path: Path) -> None:
    read: Any = load_job("train_policy").read(
        ["policy.kl_weight=5", "demos.episode_weights.7=2", "env.perturbation=light"]
    )
    assert read.policy["kl_weight"] == 5
    assert read.demos.episode_weights == {7: 2.0}
    assert read.env["perturbation"] == "light"


def test_recorded_demonstrations_bring_their_environment() -> None:
    job: Any = load_job("train_policy")
    for demos in (["demos=store", "demos.path=a.zarr"], ["demos=lerobot", "demos.root=a"]):
        assert job.read(demos).env == {}
        assert job.read([*demos, "env.fps=10"]).env == {"fps": 10}
        assert job.read([*demos, "env=robosuite_stack"]).env["task"] == "Stack"


def test_the_papers_protocol_differs_by_settings_alone() -> None:
    job: Any = load_job("evaluate_encoder")
    assert job.read([]).protocol.robustness.seeds == (0,)
    assert job.read(["protocol=paper", "protocol.neighbours.crop=200"]).protocol.robustness.seeds == (0, 1, 2)


def test_a_recipe_chooses_its_encoder() -> None:
    fields = composed("pretrain_encoder", "images.path=a", "pretraining=vit5b")
    assert fields["pretraining"]["variant"] == fields["encoder"]["name"] == "pixio_vit5b16"


@mark.parametrize(
    "recipe",
    sorted((CONFIG_FOLDER / "recipe" / "scripted").rglob("*.yaml")),
    ids=lambda file: f"{file.parent.name} {file.stem}",
)
def test_a_task_may_have_a_recipe_of_its_own(recipe: Path) -> None:
    env = f"env={recipe.stem}"
    assert recipe.parent.name == "act"  # the default policy
    plain, own = composed("train_policy", "env=robosuite_door"), composed("train_policy", env)
    assert (own["demos"], own["trainer"]) != (plain["demos"], plain["trainer"])  # Door has none
    assert composed("train_policy", env, "trainer=debug")["trainer"]["steps"] == 4, "what is asked for wins"
    assert composed("train_policy", env, "trainer.steps=7", "demos.episodes=3")["demos"]["episodes"] == 3
    of_store = composed("train_policy", env, "demos=store", "demos.path=a.zarr")
    assert of_store["demos"]["episodes"] == plain["demos"]["episodes"], (
        "a recipe is for demonstrations that are collected"
    )
    of_diffusion, door = (
        composed("train_policy", "policy=diffusion", f"env={name}") for name in (recipe.stem, "robosuite_door")
    )
    assert (of_diffusion["demos"], of_diffusion["trainer"]) == (door["demos"], door["trainer"]), "and for one policy"
