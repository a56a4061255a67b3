"""How far a long measurement is, on the terminal's error output; nothing where that is no terminal."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


class Progress:
    """One bar. `step` moves it."""

    def __init__(self, bars: Bars, title: str, total: int) -> None:
        self._bars = bars
        self._task = bars.add_task(title, total=total)

    def step(self) -> None:
        """One more is done."""
        self._bars.advance(self._task)


@contextlib.contextmanager
def progress(title: str, total: int) -> Iterator[Progress]:
    """A bar for the length of a block."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        yield Progress(bars, title, total)
