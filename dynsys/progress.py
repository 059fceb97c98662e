"""What long work shows: a rich progress bar in a terminal, plain lines in a log.

step, loss, forcing strength, the scores of the last checkpoint, the best so far, time left.
"""

import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from dynsys.train.trainer import WORST_SCORE, Progress

PLAIN_LINES = 20  # a log gets about so many lines, besides those at scores


@contextlib.contextmanager
def shown(progress: Callable[[Progress], None] | bool) -> Iterator[Callable[[Progress], None]]:
    """The function to call with every report: the given one, one that draws on stderr (True), or one that is silent."""
    if callable(progress):
        yield progress
    elif progress:
        from rich.console import Console

        with TrainingProgress(Console(stderr=True)) as drawn:
            yield drawn.update
    else:
        yield lambda told: None


class TrainingProgress:
    """A context manager whose `update` is the `progress` of `fit`; `console` is a rich Console."""

    def __init__(self, console: Any):
        self.console = console
        self.bar: Any = None
        self.task: Any = None
        self.next_line = 0.0
        self.first: tuple[int, float] | None = None
        self.scores = ""

    def __enter__(self) -> "TrainingProgress":
        if self.console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (TextColumn("training"), BarColumn(bar_width=24), TextColumn("{task.completed}/{task.total}"))
            more = (TextColumn("{task.fields[words]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
            self.bar = Progress(*columns, *more, console=self.console)
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, told: Progress) -> None:
        """Show one report of the training loop."""
        if self.first is None:
            self.first = (told.step, told.seconds)  # the first chunk compiles; its pace says nothing of the rest
        scored = [row for row in told.rows if row.score is not None]
        if scored:
            now = ", ".join(_score(row.score.total) for row in scored if row.score is not None)
            self.scores = f"  scores {now} (best {_score(min(told.best))})"
        losses = [row.loss for row in told.rows]
        skipped = sum(row.skipped for row in told.rows)
        words = f"loss {min(losses):.4g}" if len(losses) == 1 else f"loss {min(losses):.4g}-{max(losses):.4g}"
        words += f"  forcing {told.rows[0].strength:.2f}" + (f"  skipped {skipped}" if skipped else "")
        if self.bar is not None:
            if self.task is None:
                self.task = self.bar.add_task("training", total=told.steps, words="")
            self.bar.update(self.task, completed=told.step, words=words + self.scores)
        elif scored or told.step >= self.next_line or told.step >= told.steps:
            self.next_line = told.step + told.steps / PLAIN_LINES
            line = f"step {told.step}/{told.steps}  {words}{self.scores if scored else ''}  {self._left(told)}"
            self.console.print(line, highlight=False, soft_wrap=True)

    def _left(self, told: Progress) -> str:
        step, seconds = self.first or (0, 0.0)
        if told.step <= step:
            return f"{told.seconds:.0f} s"
        left = (told.seconds - seconds) / (told.step - step) * (told.steps - told.step)
        return f"{told.seconds:.0f} s, {left:.0f} s left"


def _score(total: float) -> str:
    return "dead" if not total < WORST_SCORE else f"{total:.3g}"
