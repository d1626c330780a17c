"""Every command of every README runs, in a small form: the page's own text, on files and runs of the names that pages use."""

from pathlib import Path

import numpy as np
import torch
from forked_scripts import run_python
from pages import ROOT, Command, blocks, commands, install, write_files
from PIL import Image
from pytest import fixture, mark, param
from recorded_dataset import record_dataset

pytestmark = [mark.slow, mark.timeout(1800)]

NOT_HERE = {
    "robot.type=so101_follower": "needs an arm; an arm that notes what it gets stands for it in test_newcomers.py",
    "expert=keyboard": "needs a hand and a screen: tests/demos/collection/by_hand",
    "serve_policy": "runs until it is stopped: tests/deployment/remote",
    "benchmark_": "measures for minutes; each has its test in tests/scripts/benchmarks",
    "data.nyu": "needs the public dataset; a folder of its layout is read in tests/downstream/dense",
    "env=pusht": "needs a recording of PushT: tests/envs/simulators/test_other_simulators.py",
    "robot=lerobot robot.type=…": "needs an arm, as above",
    "submitit_slurm": "needs a cluster; the same on one machine: tests/cli/test_cluster.py",
    "resume=last": "needs a run that was killed: tests/training, tests/cli/test_continued.py",
}
"""What has to be there beside this repository and a processor, and where what can be tested of it is."""

IN_SMALL = {
    "/path/to/dataset": "reach", "/path/to/images": "photos", "/path/to/frames": "photos", "demos.root=…": "demos.root=reach",
    "/path/to/model.safetensors": "weights.safetensors", "FILE": "weights.safetensors",
    "outputs/pretrain_encoder/<run>/checkpoints/<step>/encoder.safetensors": "weights.safetensors",
    "<store or dataset>": "reach", "<run>": "outputs/evaluate_policy/first",
    "checkpoint=<checkpoint>": "checkpoint=first", "start_from=<checkpoint>": "start_from=first",
    "env=robosuite_stack checkpoint=latest": "env=robosuite_stack checkpoint=stack", "checkpoint=latest": "checkpoint=first",
    "checkpoint=linear": "checkpoint=first", "checkpoint=reach": "checkpoint=first",
    "lift.hdf5 lift.zarr": "lift.hdf5 from_hdf5.zarr",
    "outputs/pretrain_encoder/mine/checkpoints/<step>/encoder.safetensors": "weights.safetensors",
    "pixio_vitb": "pixio_tiny", "pixio_vitl": "pixio_tiny", "teacher=pixio_vith16": "teacher=pixio_small16",
    "seed=0,1,2": "seed=0,1", "episode=3": "episode=1", "episodes=50 compare": "episodes=1 compare",
    "[outputs/train_policy]": "[outputs/train_policy/first,outputs/train_policy/second]",
}  # fmt: skip
"""What stands in for what a reader puts in, and for large encoders and long sweeps."""

EVALUATION = [
    "evaluation.episodes=1",
    "evaluation.workers=1",
    "evaluation.videos=1",
    "evaluation.episodes_during_training=1",
]
TRAINER = ["trainer.steps=2", "trainer.batch_size=4", "trainer.warmup_steps=1", "trainer.checkpoint_every=2"]
PRETRAINING = ["steps=2", "epochs=null", "batch_size=8", "accumulation=1", "image_size=32"]
PROTOCOL = [
    *("probes.frames=64", "probes.image_size=32", "probes.families=[lift_panda]", "probes.seeds=[0]"),
    *("neighbours.scenes=2", "neighbours.test_scenes=1", "neighbours.scene_size=32", "neighbours.neighbours=[1]"),
    *("neighbours.families=[lift_panda,door_panda]", "neighbours.resize=32", "neighbours.crop=32"),
    *("robustness.demonstrations=[2]", "robustness.perturbations=[light]"),
    *(f"robustness.{setting}" for setting in (*TRAINER, *EVALUATION[:3])),
    *("dense.heads=[linear]", "dense.crop=32", "dense.stride=16", "dense.epochs=1", "dense.evaluate_every=1"),
    *("dense.scenes.frames=8", "dense.scenes.test_frames=4", "dense.scenes.image_size=32", "dense.recipe.batch_size=4"),
    *("dense.scenes.families=[lift_panda]", "dense.scenes.held_out_families=[lift_ur5e]"),
]
SMALL = {
    "train_policy": [*TRAINER, *EVALUATION],
    "collect_demos": ["workers=1"],
    "evaluate_policy": ["episodes=1", "workers=1", "videos=1"],
    "measure_experts": ["seeds=1", "workers=1"],
    "verify_artifact": ["calls=2", "threads=[1]"],
    "run_policy": ["realtime=false"],
    "render_scenes": ["frames=64", "image_size=32", "workers=1", "families=[lift_panda]"],
    "pretrain_encoder": [f"pretraining.{setting}" for setting in PRETRAINING],
    "distill_encoder": [f"distillation.{setting}" for setting in PRETRAINING],
    "score_images": ["masks=1"],
    "evaluate_encoder": [f"protocol.{setting}" for setting in PROTOCOL],
}
"""What makes a job of minutes one of seconds."""

OF_64_PX = ("train_policy", "collect_demos", "evaluate_policy", "run_policy")


def run(folder: Path, job: str, *words: str) -> str:
    """Run a job in a folder; return what it said."""
    environment = {"COLUMNS": "200", "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{folder / 'touch'}:{folder / 'linear'}"}
    done = run_python(str(ROOT / "scripts" / f"{job}.py"), *words, cwd=folder, environment=environment)
    said = done.stdout + done.stderr
    is_busy = said.count("FAIL") == 1 and "FAIL  p99" in said  # this computer, while an artifact's times are measured
    assert (done.returncode == 0 or is_busy) and "Traceback" not in said, said
    return said


def small_form(command: Command) -> list[str]:
    """Return the words of a command as they are run here."""
    text = command.arguments
    for theirs, ours in IN_SMALL.items():
        text = text.replace(theirs, ours)
    words = Command(command.page, command.job, text).words
    added = [*SMALL.get(command.job, ())]
    simulated = not any(word.startswith(("demos=lerobot", "demos.root")) for word in words)
    if command.job in OF_64_PX and simulated:
        added.append("env.image_size=64")
    if command.job == "train_policy" and simulated and "demos=store" not in words:
        added += [f"demos.episodes={10 if 'mt10' in text else 2}", "demos.workers=1"]  # one of each task
    if "demos=lerobot" in text:
        added.append("encoder.image_size=64")
    if "resnet18" in text:
        added.append("encoder.weights=random")
    if "collect" in command.job:
        added.append("episodes=3" if "checkpoint" in text else "episodes=2")
    if command.job == "evaluate_encoder" and "tasks=" not in text:
        added.append("tasks=[depth,probes]")  # two views and robot learning take minutes in any form
    if "evaluate_every" in text:
        added.append("trainer.evaluate_every=1")
    return [*words, *added]


def reason_not_to_run(command: Command) -> str | None:
    text = f"{command.job} {command.arguments}"
    return next((reason for part, reason in NOT_HERE.items() if part in text), None)


def all_commands() -> list:
    """Every command once, in the pages' order; each that cannot run here with its reason."""
    found = {(each.job, each.arguments): each for each in commands() if not each.arguments.startswith("…")}
    return [
        param(each, marks=[mark.skip(reason=reason)] if (reason := reason_not_to_run(each)) else [])
        for each in found.values()
    ]


@fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with what pages name: a recording, photographs, stores, runs, an artifact, encoders, plugins."""
    folder = tmp_path_factory.mktemp("desk")
    for page in ("envs", "policies"):
        write_files(ROOT / page / "README.md", folder)
    install(folder / "touch")
    install(folder / "linear")
    record_dataset(folder / "reach", episodes=3, steps=20, video=False)
    generator = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(16):
        Image.fromarray(generator.integers(0, 255, (80, 120, 3), np.uint8)).save(folder / "photos" / f"{number}.jpg")
    torch.jit.save(torch.jit.trace(Patches(), torch.rand(1, 3, 64, 64)), folder / "encoder.pt")
    run(folder, "export_encoder", "format=timm", "output=timm_folder")
    (folder / "weights.safetensors").write_bytes(next((folder / "timm_folder").glob("*.safetensors")).read_bytes())
    lift = "outputs/demos/lift.zarr"
    run(folder, "collect_demos", "episodes=2", "workers=1", "env.image_size=64", f"output={lift}")
    run(folder, "convert_demos", lift, "lift.zarr", "format=store")
    run(folder, "convert_demos", lift, "lift.hdf5")
    stack = ["env=robosuite_stack", "env.image_size=64"]
    run(folder, "collect_demos", *stack, "episodes=2", "workers=1", "output=stack.zarr")
    train = [*SMALL["train_policy"], "env.image_size=64"]
    run(folder, "train_policy", *train, *stack, "demos=store", "demos.path=stack.zarr", "run=stack")
    for seed, name in ((1, "second"), (0, "first")):
        run(folder, "train_policy", *train, "demos=store", f"demos.path={lift}", f"run={name}", f"seed={seed}")
    run(folder, "evaluate_policy", "checkpoint=first", "run=first", "episodes=1", "workers=1", "env.image_size=64")
    run(folder, "export", "checkpoint=first", "output=policy.pt")
    run(folder, "render_scenes", "output=outputs/frames", *SMALL["render_scenes"])
    (folder / "outputs" / "shards").symlink_to("frames")
    return folder


class Patches(torch.nn.Module):
    """An encoder of one's own: the mean colours of patches of 16 px, as tokens (B, N, 3)."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images_BCHW, 16).flatten(2).transpose(1, 2)


@mark.parametrize("command", all_commands(), ids=lambda each: f"{each.job} {each.arguments}"[:80])
def test_a_command_of_a_page_runs(command: Command, desk: Path) -> None:
    run(desk, command.job, *small_form(command))


@mark.parametrize("page", ["demos", "deployment"])
def test_the_python_of_a_page_runs(page: str, desk: Path) -> None:
    (lines,) = blocks(ROOT / "pixio_robot" / page / "README.md", "python")
    given = "import torch; frames = wrist = torch.zeros(1, 64, 64, 3, dtype=torch.uint8); state = torch.zeros(1, 9)\n"
    done = run_python("-c", given + lines, cwd=desk, environment={"COLUMNS": "200"})
    assert done.returncode == 0, done.stdout + done.stderr


def test_few_commands_cannot_run_here() -> None:
    marks = [bool(each.marks) for each in all_commands()]
    assert sum(marks) < len(marks) / 4
