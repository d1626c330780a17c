"""How processes share the GPUs of a machine."""

import os

import torch

from pixio_robot.common.errors import UserError


def check_one_gpu_each() -> None:
    """Refuse more processes than this machine has GPUs, where it has any.

    Raises:
        UserError: Says how many processes are possible, and how to use none of the GPUs.
    """
    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if 0 < gpus < processes:
        raise UserError(
            f"{processes} processes were started on a machine with {gpus} GPU{'s' if gpus > 1 else ''}, and each needs its "
            f"own: start at most {gpus} (--nproc-per-node {gpus}), or put CUDA_VISIBLE_DEVICES= before the command to "
            "compute on the CPU."
        )
