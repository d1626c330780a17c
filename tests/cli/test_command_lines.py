"""What people type: each wrong command line is one plain sentence, each right one means what it says.

These are checked without running the jobs: nothing else happens before `Job.read` has returned.
"""

from pathlib import Path
from typing import Any

from pytest import mark, raises

from pixio_robot.cli.entry_points import load_job
from pixio_robot.common.errors import UserError

TRAIN, PRETRAIN, DISTIL, EVALUATE = "train_policy", "pretrain_encoder", "distill_encoder", "evaluate_policy"
COUNT, WHOLE = "a whole number of at least 1", "a whole number of at least 0"

REFUSED: list[tuple[str, str, str]] = [
    # numbers that are none
    (TRAIN, "seed=abc", f"seed must be {WHOLE}, got 'abc'."),
    (TRAIN, "seed=true", f"seed must be {WHOLE}, got true."),
    (TRAIN, "seed='3'", f"seed must be {WHOLE}, got '3'."),
    (TRAIN, "seed=-1", f"seed must be {WHOLE}, got -1."),
    (TRAIN, "seed=null", f"seed must be {WHOLE}, got null."),
    (TRAIN, "trainer.steps=1.5", f"trainer.steps must be {COUNT}, got 1.5."),
    (TRAIN, "trainer.steps=abc", f"trainer.steps must be {COUNT}, got 'abc'."),
    (TRAIN, "trainer.steps=[1]", f"trainer.steps must be {COUNT}, got [1]."),
    (TRAIN, "trainer.steps=", f"trainer.steps must be {COUNT}, got ''."),
    (TRAIN, "trainer.learning_rate=fast", "trainer.learning_rate must be a number above 0, got 'fast'."),
    (TRAIN, "trainer.cache_features=yes", "trainer.cache_features must be true or false, got 'yes'."),
    (TRAIN, "trainer.cache_features=1", "trainer.cache_features must be true or false, got 1."),
    (TRAIN, "trainer=fast", "Unknown trainer 'fast'. "),
    # numbers out of range
    (TRAIN, "trainer.steps=0", f"trainer.steps must be {COUNT}, got 0."),
    (TRAIN, "trainer.steps=-5", f"trainer.steps must be {COUNT}, got -5."),
    (TRAIN, "trainer.batch_size=0", f"trainer.batch_size must be {COUNT}, got 0."),
    (TRAIN, "trainer.batch_size=-4", f"trainer.batch_size must be {COUNT}, got -4."),
    (TRAIN, "trainer.checkpoint_every=0", f"trainer.checkpoint_every must be {COUNT}, got 0."),
    (TRAIN, "trainer.log_every=0", f"trainer.log_every must be {COUNT}, got 0."),
    (TRAIN, "trainer.warmup_steps=-1", f"trainer.warmup_steps must be {WHOLE}, got -1."),
    (TRAIN, "trainer.learning_rate=-1", "trainer.learning_rate must be a number above 0, got -1."),
    (TRAIN, "trainer.learning_rate=0", "trainer.learning_rate must be a number above 0, got 0."),
    (TRAIN, "trainer.learning_rate=nan", "trainer.learning_rate must be a number above 0, got nan."),
    (TRAIN, "trainer.learning_rate=inf", "trainer.learning_rate must be a number above 0, got inf."),
    (TRAIN, "trainer.weight_decay=-1", "trainer.weight_decay must be a number of at least 0, got -1."),
    (TRAIN, "trainer.gradient_clip=0", "trainer.gradient_clip must be a number above 0, got 0."),
    (TRAIN, "trainer.average_decay=2", "trainer.average_decay must be a number of at least 0 and below 1, got 2."),
    (TRAIN, "trainer.average_decay=1", "trainer.average_decay must be a number of at least 0 and below 1, got 1."),
    (TRAIN, "trainer.encoder_layer_decay=2", "trainer.encoder_layer_decay must be a number from 0 to 1, got 2."),
    (TRAIN, "trainer.augmented_copies=-1", f"trainer.augmented_copies must be {WHOLE} or null, got -1."),
    (TRAIN, "evaluation.workers=0", f"evaluation.workers must be {COUNT}, got 0."),
    (TRAIN, "evaluation.episodes=-1", f"evaluation.episodes must be {WHOLE}, got -1."),
    (TRAIN, "evaluation.videos=-1", f"evaluation.videos must be {WHOLE}, got -1."),
    (TRAIN, "demos.episodes=0", f"demos.episodes must be {COUNT}, got 0."),
    (TRAIN, "demos.workers=0", f"demos.workers must be {COUNT}, got 0."),
    (TRAIN, "+demos.episode_weights.7=-2", "demos.episode_weights.7 must be a number of at least 0, got -2."),
    (TRAIN, "+demos.episode_weights.a=2", "demos.episode_weights"),
    (TRAIN, "encoder.image_size=0", f"encoder.image_size must be {COUNT} or null, got 0."),
    (TRAIN, "encoder.lora_rank=0", f"encoder.lora_rank must be {COUNT}, got 0."),
    (TRAIN, "env.image_size=0", "env.image_size must be a whole number of at least 1, got 0"),
    (TRAIN, "env.fps=0", "env.fps must be a whole number of at least 1, got 0"),
    (EVALUATE, "checkpoint=a episodes=0", f"episodes must be {COUNT}, got 0."),
    (EVALUATE, "checkpoint=a workers=0", f"workers must be {COUNT}, got 0."),
    (EVALUATE, "checkpoint=a batch_size=0", f"batch_size must be {COUNT}, got 0."),
    (EVALUATE, "checkpoint=a time_limit=-1", "time_limit must be a number above 0, got -1."),
    ("collect_demos", "episodes=-3", f"episodes must be {COUNT}, got -3."),
    ("collect_demos", "workers=0", f"workers must be {COUNT} or null, got 0."),
    ("collect_demos", "codec=gif", "Unknown codec 'gif'."),
    ("measure_experts", "seeds=0", f"seeds must be {COUNT}, got 0."),
    ("run_policy", "artifact=a episodes=0", f"episodes must be {COUNT}, got 0."),
    ("run_policy", "artifact=a rate=0", "rate must be a number above 0 or null, got 0."),
    ("run_policy", "artifact=a mode=sync", "Unknown mode 'sync'. Did you mean 'synchronous'?"),
    ("run_policy", "", "Give either artifact=<file> or server="),
    ("run_policy", "artifact=a robot=lerobt", "Did you mean 'lerobot'"),
    ("run_policy", "artifact=a robot=lerobot", "robot.type must be given"),
    ("serve_policy", "artifact=a port=70000", "port must be a whole number from 0 to 65535, got 70000."),
    ("serve_policy", "artifact=a key=k", "TLS needs both"),
    ("verify_artifact", "a.pt calls=0", f"calls must be {COUNT}, got 0."),
    ("verify_artifact", "a.pt threads=[0]", f"threads.0 must be {COUNT}, got 0."),
    ("verify_artifact", "a.pt threads=2", "threads must be a list such as [a,b], each entry a whole number"),
    ("export", "format=onx", "Unknown format 'onx'. Did you mean 'onnx'?"),
    ("export", "precision=float8", "Unknown precision 'float8'."),
    ("render_scenes", "frames=0", f"frames must be {COUNT}, got 0."),
    ("evaluate_encoder", "protocol.probes.scene_seed=0", f"protocol.probes.scene_seed must be {COUNT}, got 0."),
    (
        "evaluate_encoder",
        "protocol.probes.pose_readout=flat",
        "Unknown protocol.probes.pose_readout 'flat'. Did you mean 'flatten'?",
    ),
    ("evaluate_encoder", "+own.mine={nam: a}", "Unknown setting 'own.mine.nam'. Did you mean 'name'?"),
    ("evaluate_encoder", "tasks=[depht]", "Unknown tasks.0 'depht'. Did you mean 'depth'?"),
    ("evaluate_encoder", "protocol=papre", "Unknown protocol 'papre'. Did you mean 'paper'?"),
    ("score_images", "path=a masks=0", f"masks must be {COUNT}, got 0."),
    ("inspect_demos", "path=a episode=-1", f"episode must be {WHOLE}, got -1."),
    ("convert_demos", "a b fps=0", f"fps must be {COUNT} or null, got 0."),
    ("convert_demos", "a b format=hdf5", "Unknown format 'hdf5'."),
    ("convert_demos", "a", "destination must be given"),
    ("convert_demos", "a b c", "'c' is one path too many"),
    (
        "evaluate_encoder",
        "protocol.robustness.demonstrations=[0]",
        f"protocol.robustness.demonstrations.0 must be {COUNT}, got 0.",
    ),
    ("compare_runs", "runs=a", "runs must be a list such as [a,b], each entry a path, got 'a'."),
    # pretraining
    (PRETRAIN, "images.path=a pretraining.batch_size=0", f"pretraining.batch_size must be {COUNT}, got 0."),
    (PRETRAIN, "images.path=a pretraining.accumulation=0", f"pretraining.accumulation must be {COUNT}, got 0."),
    (PRETRAIN, "images.path=a pretraining.lanes=0", f"pretraining.lanes must be {COUNT}, got 0."),
    (
        PRETRAIN,
        "images.path=a pretraining.mask_ratio=1",
        "pretraining.mask_ratio must be a number of at least 0 and below 1",
    ),
    (PRETRAIN, "images.path=a pretraining.lr=nan", "pretraining.lr must be a number above 0 or null, got nan."),
    (PRETRAIN, "images.path=a pretraining.steps=0", f"pretraining.steps must be {COUNT} or null, got 0."),
    (PRETRAIN, "images.path=a pretraining.steps=5", "Give exactly one of steps and epochs"),
    (
        PRETRAIN,
        "images.path=a pretraining.optimizer=adam",
        "Unknown pretraining.optimizer 'adam'. Did you mean 'adamw'?",
    ),
    (PRETRAIN, "images.path=a pretraining.crop_scale=[0.2]", "pretraining.crop_scale"),
    (PRETRAIN, "images.path=a pretraining.crop_scale=[1,0.2]", "crop_scale must be the least and the largest"),
    (PRETRAIN, "images.path=a pretraining.decoder_heads=3", "cannot have 3 heads"),
    (
        PRETRAIN,
        "images.path=a pretraining.photometric.hue=2",
        "pretraining.photometric.hue must be a number from 0 to 1",
    ),
    (
        PRETRAIN,
        "images.path=a pretraining.photometric={huge: 1}",
        "names entries that pretraining.photometric does not have",
    ),
    (PRETRAIN, "", "images.path must be given: add images.path=… to the command."),
    (PRETRAIN, "images=shard images.path=a", "Unknown images 'shard'. Did you mean 'shards'?"),
    (PRETRAIN, "images=live images.workers=0", f"images.workers must be {COUNT} or null, got 0."),
    (PRETRAIN, "images=mixture", "images.sources must be given"),
    (PRETRAIN, "images=mixture images.sources=[{kind: folder, path: a}]", "needs a weight"),
    (PRETRAIN, "images=mixture images.sources=[{kind: foldr, weight: 1}]", "Did you mean 'folder'?"),
    (PRETRAIN, "images.path=a images.side=0", f"images.side must be {COUNT}, got 0."),
    (DISTIL, "images.path=a distillation.teacher=null", "distillation.teacher must be text, got null."),
    (DISTIL, "images.path=a distillation=vit1b_vith", "Give exactly one of steps and epochs"),
    # choices, names and Hydra's language
    (TRAIN, "encoder=pixio_vittl", "Unknown encoder 'pixio_vittl'. Did you mean 'pixio_vitl'?"),
    (TRAIN, "encoder=dino", "Did you mean 'dinov2_vits' or 'dinov3_vits'?"),
    (TRAIN, "encoder=1", "Unknown encoder '1'."),
    (TRAIN, "encoder.mode=frozn", "Unknown encoder.mode 'frozn'. Did you mean 'frozen'?"),
    (TRAIN, "encoder.mode=glob(*)", "Unknown encoder.mode 'glob(*)'."),
    (TRAIN, "encoder.mode=3", "Unknown encoder.mode '3'."),
    (TRAIN, "encoder=torchscript", "encoder.weights must be given"),
    (TRAIN, "evaluation.checkpoint=newest", "Unknown evaluation.checkpoint 'newest'."),
    (TRAIN, "evaluation.checkpoint=best", "needs evaluations during training"),
    (TRAIN, "trainer.augmented_copies=1 encoder.mode=lora", "trainer.augmented_copies are cached copies"),
    (TRAIN, "demos=store", "demos.path must be given"),
    (TRAIN, "demos=lerobot", "demos.root or demos.repo_id must be given"),
    (TRAIN, "demos.sample_by=steps", "Unknown demos.sample_by 'steps'. Did you mean 'step'?"),
    (TRAIN, "trainer.stepz=3", "Unknown key 'trainer.stepz'. Did you mean 'trainer.steps'?"),
    (TRAIN, "+trainer.stepz=3", "Unknown setting 'trainer.stepz'. Did you mean 'steps'?"),
    (TRAIN, "sede=3", "Unknown key 'sede'. Did you mean 'seed'?"),
    (TRAIN, "trainer.steps=[", "Cannot read 'trainer.steps=[' as KEY=VALUE"),
    (TRAIN, "trainer.steps={a", "Cannot read 'trainer.steps={a' as KEY=VALUE"),
    (TRAIN, "output_root=${nowhere}", "Cannot fill in ${…}: Interpolation key 'nowhere' not found."),
    (TRAIN, "output_root=null", "output_root must be text, got null."),
    (TRAIN, "output_root=", "output_root must be text, got ''."),
    (TRAIN, "job", "'job' is no setting: say KEY=VALUE"),
    (TRAIN, "--encoder=x", "Unknown option '--encoder=x': say encoder=x, without dashes"),
    (TRAIN, "--seed 3", "Unknown option '--seed': say seed=3, without dashes"),
    (TRAIN, "--config-dir nowhere", "There is no folder nowhere"),
    (TRAIN, "--experimental-rerun a.pickle", "Unknown option '--experimental-rerun'"),
    (TRAIN, "--cfg", "--cfg needs a value"),
    (TRAIN, "-m --cfg job", "--multirun and --cfg do not go together: give one of them."),
    (TRAIN, "env=robosuite_lft", "Did you mean 'robosuite_lift'?"),
    (TRAIN, "env.task=Lyft", "unknown task 'Lyft': did you mean 'Lift'?"),
    (TRAIN, "env.perturbation=dark", "unknown perturbation 'dark'"),
    (TRAIN, "env.camera_names=agentview", "camera"),
    (TRAIN, "policy=atc", "Unknown policy 'atc'. Did you mean 'act'?"),
    (TRAIN, "trainer={steps: 3}", "trainer"),
    (TRAIN, "demos={source: store}", "demos"),
]


@mark.parametrize(("job", "line", "sentence"), REFUSED)
def test_a_mistake_is_one_sentence(job: str, line: str, sentence: str) -> None:
    with raises(UserError) as caught:
        load_job(job).read(split(line))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


ACCEPTED: list[tuple[str, str, str, Any]] = [
    (PRETRAIN, "images.path=2024", "images.path", "2024"),
    (TRAIN, "output_root=2026_11_27", "output_root", "2026_11_27"),
    (EVALUATE, "checkpoint=1e5", "checkpoint", Path("1e5")),
    (EVALUATE, "checkpoint=0x10", "checkpoint", Path("0x10")),
    ("collect_demos", "output=2026", "output", Path("2026")),
    ("collect_demos", "output=true", "output", Path("true")),
    ("inspect_demos", "path=数据", "path", "数据"),
    ("inspect_demos", "path=g#h", "path", "g#h"),
    ("inspect_demos", "path=e,f", "path", "e,f"),
    ("inspect_demos", "path=c=d", "path", "c=d"),
    ("inspect_demos", "path=[a]", "path", "[a]"),
    ("inspect_demos", "path={a:b}", "path", "{a:b}"),
    ("inspect_demos", "path=it's", "path", "it's"),
    ("inspect_demos", 'path=say"hi"', "path", 'say"hi"'),
    ("inspect_demos", "path='quoted'", "path", "quoted"),
    ("inspect_demos", "path=back\\slash\\", "path", "back\\slash\\"),
    ("inspect_demos", "path=s3://bucket/lift.zarr?a=1&b=2", "path", "s3://bucket/lift.zarr?a=1&b=2"),
    ("inspect_demos", "path=choice(a)", "path", "choice(a)"),
    ("inspect_demos", "path=~/lift.zarr", "path", "~/lift.zarr"),
    ("convert_demos", "2024 1e5", "source", "2024"),
    ("convert_demos", "source=c=d.zarr out", "source", "c=d.zarr"),
    ("score_images", "path=s-{0000..0099}.tar", "path", "s-{0000..0099}.tar"),
    ("score_images", "path=[a,2024]", "path", ("a", "2024")),
    ("compare_runs", "runs=[2026_11_27,b]", "runs", (Path("2026_11_27"), Path("b"))),
    ("compare_runs", "output_root=a", "output", Path("a/compare_runs")),
    (TRAIN, "run=1e5", "run", "1e5"),
    (PRETRAIN, "images.path=a run=007", "run", "007"),
    (DISTIL, "images.path=a resume=auto run=2024", "resume", "auto"),
    (TRAIN, "trainer.wandb=2024", "trainer.wandb", "2024"),
    (TRAIN, "encoder.weights=2024.safetensors", "encoder.weights", "2024.safetensors"),
    (TRAIN, "demos=store demos.path=2024", "demos.path", "2024"),
    (TRAIN, "demos=store demos.path=[a.zarr,2024]", "demos.path", ("a.zarr", "2024")),
    (TRAIN, "demos=lerobot demos.repo_id=me/2024", "demos.repo_id", "me/2024"),
    (TRAIN, "output_root=runs/${encoder.name}", "output_root", "runs/pixio_tiny16"),
    (TRAIN, "encoder.lora_targets=[1,qkv]", "encoder.lora_targets", ("1", "qkv")),
    (TRAIN, "trainer.learning_rate=1", "trainer.learning_rate", 1.0),
    (TRAIN, "demos.path=null", "demos.path", None),
    ("run_policy", "artifact=a +cameras.front=2", "cameras", {"front": "2"}),
    ("run_policy", "artifact=a cameras.front=2 robot=lerobot robot.type=a robot.port=b", "robot.port", "b"),
    (TRAIN, "policy.condition_on_task=false", "policy.condition_on_task", False),
    ("evaluate_encoder", "+own.mine.weights=2024", "own.mine.weights", "2024"),
    (PRETRAIN, "images=shards images.path=a images.curation={min_side: 320}", "images.curation.min_side", 320),
]


@mark.parametrize(("job", "line", "path", "meaning"), ACCEPTED)
def test_text_means_what_is_typed(job: str, line: str, path: str, meaning: object) -> None:
    value: Any = load_job(job).read(split(line))
    for name in path.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    assert value == meaning and type(value) is type(meaning)


def split(line: str) -> list[str]:
    """Split a line into arguments as a shell does, where braces and brackets hold blanks together."""
    arguments, depth = [""], 0
    for character in line:
        depth += (character in "{[") - (character in "}]")
        if character == " " and depth <= 0:
            arguments.append("")
        else:
            arguments[-1] += character
    return [argument for argument in arguments if argument]
