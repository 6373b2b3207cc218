"""The command line: verbs to functions. Parses and prints; decides nothing."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from saccade.pipeline.errors import Interrupted, SaccadeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from saccade.jobs.driver import RunSummary
    from saccade.jobs.options import RunOptions
    from saccade.workers.memory_size import MemoryLimit
    from saccade.workers.tasks import ImageEntry

EXIT_COMPLETE, EXIT_ERROR, EXIT_USAGE, EXIT_QUARANTINED, EXIT_INTERRUPTED = 0, 1, 2, 3, 75

app = typer.Typer(
    name="saccade",
    help="A glance at the whole image, then a look where it matters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
screen = Console()
complaints = Console(stderr=True, soft_wrap=True)

Images = Annotated[
    list[str], typer.Argument(help="Files, folders, globs, or a .csv or .jsonl manifest.")
]
RecipePath = Annotated[Path, typer.Argument(help="A recipe (YAML).")]
Workers = Annotated[
    str, typer.Option(help="'ray' (actors), 'local' (this process); a count: 'ray:4'.")
]
Device = Annotated[str, typer.Option(help="'cpu', 'cuda', 'cuda:1' or 'auto'.")]
HostMemory = Annotated[
    str | None, typer.Option("--memory", help="Of this host's, at most: '8GiB' or '70%'.")
]
GpuMemory = Annotated[
    str | None, typer.Option("--gpu-memory", help="Of each GPU's, at most: '8GiB' or '70%'.")
]
RunPath = Annotated[Path, typer.Argument(help="A run's folder.")]


def main() -> None:
    """Run the command line; the exit code says how it ended."""
    try:
        app()
    except SaccadeError as error:
        complaints.print(f"saccade: {error}", style="red", markup=False, highlight=False)
        if isinstance(error, Interrupted):
            _leave_at_once(EXIT_INTERRUPTED)
        sys.exit(exit_code(error))


def _leave_at_once(code: int) -> NoReturn:
    """End without waiting for threads: a unit that outlasts the grace period can't be ended."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def exit_code(error: SaccadeError) -> int:
    """2 for what was asked wrongly, 75 for what can be resumed at once, 1 for the rest."""
    if isinstance(error, UsageError):
        return EXIT_USAGE
    return EXIT_INTERRUPTED if isinstance(error, Interrupted) else EXIT_ERROR


def _version(wanted: bool) -> None:
    if wanted:
        screen.print(f"saccade {version('saccade')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A glance at the whole image, then a look where it matters."""


@app.command("run")
def run_command(
    recipe: RecipePath,
    images: Images,
    output: Annotated[Path, typer.Option("-o", "--output", help="The run's folder.")],
    workers: Workers = "ray",
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster; RAY_ADDRESS works too.")
    ] = None,
    device: Device = "auto",
    memory: HostMemory = None,
    gpu_memory: GpuMemory = None,
    mpp: Annotated[
        float | None, typer.Option(help="Micrometres per pixel of all images given here.")
    ] = None,
    gsd: Annotated[
        float | None, typer.Option(help="Metres per pixel of all images given here.")
    ] = None,
    max_failures: Annotated[
        int, typer.Option(help="Failures of one unit until its image is set aside.", min=1)
    ] = 3,
    grace: Annotated[float, typer.Option(help="Seconds to finish units on SIGTERM.")] = 30.0,
    fsync: Annotated[bool, typer.Option(help="Force every shard to disk.")] = False,
    force: Annotated[
        bool, typer.Option(help="Start over what was made with other recipe, weights or image.")
    ] = False,
    retry: Annotated[bool, typer.Option(help="Begin images again that were set aside.")] = False,
) -> None:
    """Run a recipe over images. The same command again goes on where it stopped."""
    from saccade.jobs.manifest import find_images, with_pixel_size
    from saccade.jobs.options import RunOptions

    options = RunOptions(
        workers=workers,
        address=address,
        device=device,
        memory=_amount(memory),
        gpu_memory=_amount(gpu_memory),
        max_failures=max_failures,
        grace_seconds=grace,
        fsync=fsync,
        force=force,
        retry=retry,
    )
    entries = with_pixel_size(find_images(images), mpp=mpp, gsd=gsd)
    summary = _drive(recipe, entries, output, options)
    _tell_end(summary, output)
    if summary.quarantined:
        raise typer.Exit(EXIT_QUARANTINED)


def _amount(text: str | None) -> MemoryLimit | None:
    from saccade.workers.memory_size import MemoryLimit

    return None if text is None else MemoryLimit.parse(text)


def _drive(
    recipe: Path, entries: Sequence[ImageEntry], output: Path, options: RunOptions
) -> RunSummary:
    """Run with progress on the screen, heeding signals."""
    from saccade.jobs.starting import ray_begun
    from saccade.jobs.stopping import StopSignal, heeding_signals
    from saccade.pipeline.recipe_file import load_recipe

    tree = load_recipe(recipe)
    with heeding_signals(StopSignal()) as stop, ray_begun(options):
        from saccade.jobs.driver import run
        from saccade.jobs.progress import Progress

        progress = Progress(screen)
        try:
            base = recipe.parent
            return run(
                tree, entries, output, options, model_folder=base, observe=progress, stop=stop
            )
        finally:
            progress.close()


def _tell_end(summary: RunSummary, output: Path) -> None:
    for name, reason in summary.quarantined.items():
        complaints.print(f"set aside: {name}: {reason}", markup=False, highlight=False)
    if summary.quarantined:
        complaints.print("mend what is wrong with them and run again with --retry", markup=False)
    screen.print(f"{len(summary.complete)} results in {output / 'results'}", highlight=False)


@app.command("status")
def status_command(
    folder: RunPath,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say how far a run is, also while it runs."""
    from saccade.jobs import status

    tally = status.read_tally(folder)
    if as_json:
        print(status.as_json(tally))
    else:
        screen.print(status.as_page(tally))


@app.command("show")
def show_command(
    folder: RunPath,
    image: Annotated[str | None, typer.Argument(help="Its name; all of them if left out.")] = None,
) -> None:
    """Draw what was seen: thumbnail, saliency, which pass looked where, the result."""
    from saccade.jobs.picture import draw_pictures

    for path in draw_pictures(folder, image):
        screen.print(str(path), highlight=False, soft_wrap=True)


@app.command("inspect")
def inspect_command(
    image: Annotated[str, typer.Argument(help="An image.")],
    recipe: Annotated[
        Path | None, typer.Option(help="Also say what this recipe would read.")
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="Micrometres per pixel.")] = None,
    gsd: Annotated[float | None, typer.Option(help="Metres per pixel.")] = None,
) -> None:
    """Print an image's levels, pixel size, tiles, codec and channels."""
    from saccade.jobs.inspection import inspect_image

    for part in inspect_image(image, recipe, mpp=mpp, gsd=gsd):
        screen.print(part)


@app.command("plan")
def plan_command(
    recipe: RecipePath,
    image: Annotated[str, typer.Argument(help="The image that it is for.")],
    workers: Workers = "ray",
    device: Device = "auto",
    memory: HostMemory = None,
    gpu_memory: GpuMemory = None,
    mpp: Annotated[float | None, typer.Option(help="Micrometres per pixel.")] = None,
    gsd: Annotated[float | None, typer.Option(help="Metres per pixel.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Print how a recipe would run on an image: sizes, memory and seconds; run nothing."""
    from saccade.jobs import planning
    from saccade.jobs.rehearsal import Conditions

    limits = (_amount(memory), _amount(gpu_memory))
    schedule = planning.plan_image(
        recipe, image, Conditions(device, workers, *limits, mpp=mpp, gsd=gsd)
    )
    if as_json:
        print(planning.as_json(schedule))
    else:
        for part in planning.as_page(schedule):
            screen.print(part, highlight=False)


@app.command("tune")
def tune_command(
    recipe: RecipePath,
    image: Annotated[str, typer.Argument(help="An image whose tiles are measured on.")],
    fresh: Annotated[bool, typer.Option(help="Measure again what is known.")] = False,
    seconds: Annotated[float, typer.Option(help="Time for measuring.", min=0.1)] = 8.0,
    device: Device = "auto",
    memory: HostMemory = None,
    gpu_memory: GpuMemory = None,
    mpp: Annotated[float | None, typer.Option(help="Micrometres per pixel.")] = None,
    gsd: Annotated[float | None, typer.Option(help="Metres per pixel.")] = None,
) -> None:
    """Print what 'precision: auto' chooses, of which settings; later runs here know it then."""
    from saccade.jobs.rehearsal import Conditions
    from saccade.jobs.tuning import tune

    limits = (_amount(memory), _amount(gpu_memory))
    conditions = Conditions(device, "ray", *limits, mpp=mpp, gsd=gsd)
    for part in tune(recipe, image, conditions, fresh=fresh, seconds=seconds):
        screen.print(part, highlight=False)


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
    from saccade.jobs import evaluating, evaluation_files, evaluation_page
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


@app.command("schema")
def schema_command() -> None:
    """Print the recipe's JSON Schema, for editors."""
    from saccade.pipeline.recipe_file import recipe_schema

    print(recipe_schema())


@app.command("demo")
def demo_command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Where it goes.")] = Path("demo"),
    slide: Annotated[
        Path | None, typer.Option(help="A slide of your own; else a generated one.")
    ] = None,
    workers: Workers = "ray",
) -> None:
    """Run the main job on a slide and draw what it did."""
    from saccade.jobs.demo import run_demo

    for line in run_demo(output, slide, workers, screen):
        screen.print(line, highlight=False, soft_wrap=True)
