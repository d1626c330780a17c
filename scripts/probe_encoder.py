"""Compare frozen encoders by linear probes on simulated scenes that they were not trained on."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError


@entry_point("probe_encoder")
def main(cfg: DictConfig) -> None:
    """Render labelled scenes, probe every encoder, and print the table; see configs/probe_encoder.yaml."""
    import torch
    from lerobot_env_pixio.scenes import FAMILIES, SceneClass, SceneRenderer
    from lerobot_env_pixio.scenes.renderer import FRAMES_PER_LOOK

    from pixio_robot.common.progress import progress_bar
    from pixio_robot.downstream.probes.comparison import compare_encoders, print_comparison, save_comparison
    from pixio_robot.downstream.probes.features import check_probed
    from pixio_robot.downstream.probes.scenes import labelled_scenes
    from pixio_robot.downstream.robot_learning.encoder_benchmark import encoders_from
    from pixio_robot.encoders import readout

    if cfg.scene_seed == 0:
        raise UserError("Scenes of seed 0 are what encoders are pretrained on: give another scene_seed.")
    torch.set_num_threads(cfg.threads)
    fields = OmegaConf.to_container(cfg)
    encoders = encoders_from(fields["encoders"])
    console, families = Console(), cfg.families or list(FAMILIES)
    readout(cfg.pose_readout)  # a misspelt name must not cost the rendering
    for config in encoders.values():
        check_probed(config, cfg.image_size)
    samples, groups = [], []
    share = cfg.frames // len(families)
    try:
        with progress_bar("rendering", share * len(families), console) as advance:
            for number, family in enumerate(families):
                renderer = SceneRenderer(family, cfg.image_size, cfg.scene_seed)
                for index in range(share):
                    samples.append(renderer.sample(index))
                    groups.append(number * share + index // FRAMES_PER_LOOK)
                    advance()
                renderer.close()
    except ValueError as error:
        raise UserError(str(error)) from error
    scenes = labelled_scenes(samples, groups, [kind.name.lower() for kind in SceneClass])
    record = compare_encoders(encoders, scenes, cfg.seeds, console, cfg.pose_readout)
    record |= {"scenes": {"families": list(families)}}
    print_comparison(record, console)
    save_comparison(record, Path(cfg.output))
    console.print(f"results {cfg.output}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
