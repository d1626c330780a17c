"""A dry run: the first command beside where the robot stands and what it may be, in one table with a verdict."""

import numpy as np
from rich.console import Console
from rich.table import Table

from pixio_robot.deployment.runtime import Command, ControlReport, HoldReason, Limits, Observation


class Rehearsal:
    """Sees every command of `run_episode` and lets none through."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._first: Command | None = None  # of the policy
        self._refusal = ""

    def __call__(self, observation: Observation | None, command: Command) -> bool:
        """Keep the first command; the robot does not move, so that those after it say nothing more."""
        if command.limited is not None and self._first is None:
            self._first = command
        if command.held is HoldReason.REFUSED_START:
            self._refusal = command.sentence
        return False

    def show(self, console: Console, report: ControlReport) -> bool:
        """Print what was found, and return whether the robot may be driven."""
        refused = self._refusal
        if self._first is not None and not refused:
            console.print(self._table(self._first))
        if not refused and 2 * report.troubled > report.steps:
            refused = f"it would hold in {report.troubled} of {report.steps} control periods"
        elif not refused and self._first is None:
            refused = "the policy gave no action"
        verdict = f"[red]not to be driven[/]: {refused}" if refused else "[green]may be driven[/]; nothing was sent"
        console.print(verdict, highlight=False, soft_wrap=True)
        return not refused

    def _table(self, command: Command) -> Table:
        assert command.limited is not None
        limited = command.limited
        table = Table(
            "action", "stands at", "policy", "would be sent", "largest step", "range", "", box=None, pad_edge=False
        )
        for place, name in enumerate(self._limits.names):
            said = ["slowed to the step"] * bool(limited.slowed[place]) + ["clipped"] * bool(limited.clipped[place])
            low, high = self._limits.minimum[place], self._limits.maximum[place]
            numbers = (limited.before, limited.wanted, limited.sent, limited.largest_step)
            cells = (f"{each[place]:.4f}" if np.isfinite(each[place]) else "?" for each in numbers)
            table.add_row(name, *cells, f"{low:.4g} … {high:.4g}", ", ".join(said))
        return table
