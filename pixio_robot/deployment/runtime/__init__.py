"""The robot's side of an artifact, with torch and numpy alone.

```python
from pixio_robot.deployment.runtime import ArtifactPolicy, Controller, WallClock, check_robot, run_episode

clock = WallClock()
controller = Controller(ArtifactPolicy(Path("policy.pt")), "asynchronous", clock)
check_robot(controller, robot)  # a Device of yours: cameras, connect(), observe(), send(), disconnect()
with guarded(robot, controller) as guard:  # holds and disconnects it, whatever happens
    run_episode(guard, controller, clock, seconds=60)
print(controller.report.summary())
```

Or, for a loop of your own: `command = controller.act(Observation(values, time))` in every control period, and send
`command.action` unless it is None. Then a hold on every way out is up to you.
"""

from pixio_robot.deployment.runtime.clock import Clock, LockStepClock, WallClock
from pixio_robot.deployment.runtime.controller import Command, Controller, ControlReport, control_rate
from pixio_robot.deployment.runtime.guard import Device, Guard, guarded
from pixio_robot.deployment.runtime.holding import HoldReason
from pixio_robot.deployment.runtime.limits import Limits
from pixio_robot.deployment.runtime.loop import Robot, check_robot, run_episode
from pixio_robot.deployment.runtime.observation import (
    CameraSource,
    NotReadError,
    Observation,
    check_observation,
    task_number,
)
from pixio_robot.deployment.runtime.policy import ArtifactPolicy, ChunkPolicy

__all__ = [
    "ArtifactPolicy",
    "CameraSource",
    "ChunkPolicy",
    "Clock",
    "Command",
    "ControlReport",
    "Controller",
    "Device",
    "Guard",
    "HoldReason",
    "Limits",
    "LockStepClock",
    "NotReadError",
    "Observation",
    "Robot",
    "WallClock",
    "check_observation",
    "check_robot",
    "control_rate",
    "guarded",
    "run_episode",
    "task_number",
]
