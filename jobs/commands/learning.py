"""Verbs for models: ``train`` and ``evaluate``. Parse and print; decide nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saccade.jobs.commands.words import RunPath, screen

app = typer.Typer()


@app.command("train")
def train_command(
    config: Annotated[Path, typer.Argument(help="What to train on what (YAML).")],
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster to train on, data-parallel.")
    ] = None,
    force: Annotated[
        bool, typer.Option(help="Start over what was trained with another configuration.")
    ] = False,
) -> None:
    """Train a model of several passes. The same command again goes on where it stopped."""
    from saccade.jobs.stopping import StopSignal, heeding_signals
    from saccade.jobs.training import train

    with heeding_signals(StopSignal()) as stop:
        folder = train(
            config, force=force, address=address, console=screen, stop=lambda: stop.requested
        )
    screen.print(f"weights, card and recipe in {folder}", highlight=False, soft_wrap=True)


@app.command("evaluate")
def evaluate_command(
    folder: RunPath,
    truth: Annotated[Path, typer.Option(help="Where the truth lies (YAML).")],
    split: Annotated[Path | None, typer.Option(help="A CSV file of name and part.")] = None,
    part: Annotated[str, typer.Option(help="Of the split: train, validation or test.")] = "test",
    against: Annotated[Path | None, typer.Option(help="A dense run of the same images.")] = None,
    glance: Annotated[
        Path | None, typer.Option(help="A dense run of the glance alone: does fine beat it?")
    ] = None,
    threshold: Annotated[
        str | None, typer.Option(help="A number, 'best', or a file of --write-thresholds.")
    ] = None,
    write_thresholds: Annotated[
        Path | None, typer.Option(help="Write the best thresholds of these images here.")
    ] = None,
    least_px: Annotated[int, typer.Option(help="Ignore smaller objects.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[
        Path | None, typer.Option("--csv", help="Write a row per image and class here.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write tables and curves here.")
    ] = None,
) -> None:
    """Compare results with truth: average precision, Dice, objects, coverage, and their cost."""
    from saccade.jobs.evaluations import evaluating
    from saccade.jobs.evaluations import files as evaluation_files
    from saccade.jobs.evaluations import page as evaluation_page
    from saccade.workers.folder import write_whole

    rule = threshold or ("0.5" if write_thresholds is None else "best")
    found = evaluating.evaluate(
        folder,
        truth,
        split=split,
        part=part,
        against=against,
        glance=glance,
        threshold=evaluating.read_threshold(rule),
        least_px=least_px,
    )
    if write_thresholds is not None:
        evaluating.write_thresholds(write_thresholds, found)
    if as_csv is not None:
        write_whole(as_csv, evaluation_files.images_csv(found))
    if output is not None:
        evaluation_files.write_folder(output, found)
    if as_json:
        print(evaluation_files.as_json(found))
        return
    for table in evaluation_page.as_page(found):
        screen.print(table, highlight=False)
