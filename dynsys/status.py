"""How a piece of work ended: a value with a remedy in words, never an exception.

A diverged simulation or a training run without a finite loss is a result that a caller looks at, not a crash.
"""

import enum


class Status(enum.Enum):
    """Outcome of a simulation, a training run or a search; `ok` tells whether to trust the numbers."""

    SUCCESS = "success"
    DIVERGED = "diverged"
    EVENT = "event"
    MAX_STEPS = "max_steps"
    NOT_FINITE_LOSS = "not_finite_loss"
    DEAD = "dead"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def ok(self) -> bool:
        """True if the work ended as it should: at its end, or at the event that was asked for."""
        return self in (Status.SUCCESS, Status.EVENT)

    @property
    def remedy(self) -> str:
        """What to try next, in words."""
        return _REMEDIES[self]


_REMEDIES = {
    Status.SUCCESS: "",
    Status.EVENT: "",
    Status.DIVERGED: "The state left every bound. Start on the attractor, use a smaller step or tolerance, or a clipped model with "
    "training.bound=0.999.",
    Status.MAX_STEPS: "The solver ran out of steps. Raise max_steps, loosen rtol and atol, or use the stiff solver 'kvaerno5'.",
    Status.NOT_FINITE_LOSS: "Loss or gradient stayed NaN or inf. Try a lower learning rate, more forcing (larger alpha, smaller tau), "
    "shorter windows, or standardised data.",
    Status.DEAD: "The free run is constant or leaves the data. Train longer, try more seeds, another forcing strength, or a larger model.",
    Status.FAILED: "The work raised an error; its reason is stored beside it. Mend that, and run the failed tasks again.",
    Status.STOPPED: "The run was stopped before its end. Run the same command again to resume it.",
}
