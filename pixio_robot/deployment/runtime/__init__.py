"""The robot's side of an artifact, with torch and numpy alone.

```python
from pixio_robot.deployment.runtime import ArtifactPolicy, Controller, WallClock, check_robot, run_episode

clock = WallClock()
controller = Controller(ArtifactPolicy(Path("policy.pt")), "asynchronous", clock)
check_robot(controller, robot)  # a Robot of yours: cameras, observe(), send()
run_episode(robot, controller, clock, max_steps=600)
print(controller.report.summary())
```

Or, for a loop of your own: `command = controller.act(Observation(values, time))` in every control period, and send
`command.action` unless it is None.
"""

from pixio_robot.deployment.runtime.clock import Clock, LockStepClock, WallClock
from pixio_robot.deployment.runtime.controller import Command, Controller, ControlReport
from pixio_robot.deployment.runtime.holding import HoldReason
from pixio_robot.deployment.runtime.loop import Robot, check_robot, run_episode
from pixio_robot.deployment.runtime.observation import CameraSource, Observation, check_observation
from pixio_robot.deployment.runtime.policy import ArtifactPolicy, ChunkPolicy

__all__ = [
    "ArtifactPolicy",
    "CameraSource",
    "ChunkPolicy",
    "Clock",
    "Command",
    "ControlReport",
    "Controller",
    "HoldReason",
    "LockStepClock",
    "Observation",
    "Robot",
    "WallClock",
    "check_observation",
    "check_robot",
    "run_episode",
]
