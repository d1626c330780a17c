"""Imported first by a server of workers: torch believes in a GPU, and it is noted whether CUDA's driver was started.

torch forbids CUDA in forks of a process that has counted GPUs by means of the driver.
"""

from collections.abc import Callable

import torch

started: list[bool] = []


def _count_with_driver() -> int:
    started.append(True)
    return 1


torch._C._cuda_getDeviceCount = _count_with_driver
torch.cuda._device_count_nvml = lambda: 1


def set_up() -> Callable[[str], tuple[bool, bool]]:
    """What a worker answers: whether it sees a GPU, and whether the server started the driver before."""
    return lambda _task: (torch.cuda.is_available(), bool(started))


def ask_a_worker() -> tuple[bool, bool] | None:
    """Start a server as evaluation and collection do, and ask one of its workers."""
    from pixio_robot.common.workers import WorkerPool

    preload = [
        "cuda_driver_watch",
        "pixio_robot.evaluation.rollouts.evaluate",
        "pixio_robot.demos.collection.collection",
    ]
    with WorkerPool[str, tuple[bool, bool]](set_up, (), 1, preload) as pool:
        pool.submit("look")
        (outcome,) = pool.wait()
        while outcome.result is None and outcome.crash is None:
            (outcome,) = pool.wait()
    assert outcome.crash is None, outcome.details
    return outcome.result


if __name__ == "__main__":
    from cuda_driver_watch import ask_a_worker

    print(ask_a_worker())
