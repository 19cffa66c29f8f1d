"""What the demo prints: on a terminal with rich, else in plain lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from .compare import Agreement, Run, Runs
from .train import CONVOLUTIONS, Settings

EVERY = 10  # steps between printed lines
LABELS = {"torch": "plain PyTorch", "equiconv": "equiconv"}
Row = list[str]
Show = Callable[[], None]


def step_rows(runs: Runs) -> list[Row]:
    """The losses of all runs side by side, at the first step and at every few that the longest run made."""
    made = max((len(run.losses) for run in runs.values()), default=0)
    steps = [step for step in range(made) if step == 0 or (step + 1) % EVERY == 0]
    return [[str(step + 1), *(step_cell(runs.get(name), step) for name in CONVOLUTIONS)] for step in steps]


def step_cell(run: Run | None, step: int) -> str:
    if run is None or step >= len(run.losses):
        return ""
    return f"{run.losses[step]:.4f}  ({run.seconds[step]:4.1f} s)"


def live(runs: Runs, settings: Settings) -> AbstractContextManager[Show]:
    """Give a function that shows the runs as they are now."""
    if sys.stdout.isatty():
        try:
            return live_table(runs, settings)
        except ModuleNotFoundError:
            print("(pip install equiconv[bench] makes this prettier)")
    return nullcontext(lines(runs))


def headings() -> Row:
    return ["step", *(f"{LABELS[name]}: loss" for name in CONVOLUTIONS)]


def lines(runs: Runs) -> Show:
    def in_columns(row: Row) -> str:
        return f"{row[0]:>6}" + "".join(f"{cell:>24}" for cell in row[1:])

    shown: list[Row] = []

    def show() -> None:
        for row in step_rows(runs):
            if row not in shown:
                shown.append(row)
                print(in_columns(row), flush=True)

    print(in_columns(headings()))
    return show


def live_table(runs: Runs, settings: Settings) -> AbstractContextManager[Show]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    console = Console()

    def picture() -> Group:
        table = Table(*headings(), title="bits per byte, on the same batches")
        for row in step_rows(runs)[-max(5, console.height - 10) :]:
            table.add_row(*row)
        seconds = sum(run.seconds[-1] for run in runs.values() if run.seconds)
        return Group(table, ProgressBar(2 * settings.seconds, seconds, width=60), "")

    @contextmanager
    def displayed() -> Iterator[Show]:
        with Live(picture(), console=console, refresh_per_second=4) as display:
            yield lambda: display.update(picture())

    return displayed()


def summary_rows(runs: Runs, settings: Settings) -> list[Row]:
    torch, ours = (runs[name] for name in CONVOLUTIONS)
    tokens = settings.batch * settings.length
    last = min(len(torch.losses), len(ours.losses)) - 1

    def both(name: str, value: Callable[[Run], str]) -> Row:
        return [name, value(torch), value(ours)]

    return [
        both("steps", lambda run: str(len(run.losses))),
        both("bytes of text a second", lambda run: f"{tokens * run.steps_per_second:,.0f}"),
        both("peak memory", lambda run: megabytes(run.memory)),
        both("  of it before the first step", lambda run: megabytes(run.memory_before)),
        both(f"training loss at step {last + 1}", lambda run: f"{run.loss_around(last):.4f}"),
        both(
            f"validation loss after {settings.seconds:g} s",
            lambda run: f"{run.validation_loss:.4f}",
        ),
        both("  of a guess by frequency alone", lambda run: f"{run.unigram:.4f}"),
    ]


def megabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**20:,.0f} MiB"


def print_summary(runs: Runs, settings: Settings) -> None:
    columns = ["", *LABELS.values()]
    rows = summary_rows(runs, settings)
    try:
        from rich.console import Console
        from rich.table import Table
    except ModuleNotFoundError:
        for row in [columns, *rows]:
            print(f"{row[0]:<36}{row[1]:>20}{row[2]:>20}")
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def agreement_sentence(agreed: Agreement) -> str:
    verdict = "the losses agree" if agreed.holds else "THE LOSSES DISAGREE"
    return (
        f"At equal steps {verdict}: they differ by {agreed.first_step:.1e} at the first step, by at most "
        f"{agreed.first_steps:.1e} over the first 10, and by {agreed.at_the_end:.1e} at step {agreed.steps}."
    )


def closing_sentence(runs: Runs) -> str:
    """What a newcomer should take away, whichever way it went."""
    torch, ours = (runs[name] for name in CONVOLUTIONS)
    speed = ours.steps_per_second / torch.steps_per_second
    if speed > 1:
        pace = f"equiconv trained the same model {speed:.2f} times as fast as plain PyTorch"
    else:
        pace = f"equiconv trained the same model at {speed:.2f} times the speed of plain PyTorch"
    if torch.memory and ours.memory:
        pace += f", with {ours.memory / torch.memory:.0%} of its memory"
    return f"In short: one changed line, the convolution, and {pace}."
