"""`licodec bench`: what is asked for, and where the answer goes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from licodec.bench.evaluate import BenchPlan, Outcome
    from licodec.bench.results import Curve

_FILE = click.Path(dir_okay=False, path_type=Path)


def _anchor(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    from licodec.bench import peers

    return peers.canonical(value)


def _names(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[str]:
    if not values:
        return []
    from licodec.bench import peers

    return [peers.canonical(name) for value in values for name in value.split(",") if name]


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--codecs",
    multiple=True,
    metavar="NAME,…",
    callback=_names,
    help="Codecs to run; without it, all that can.",
)
@click.option(
    "--qualities",
    multiple=True,
    metavar="[NAME=]Q,…",
    help="Qualities, of one codec or of all, in the codec's own units.",
)
@click.option(
    "--checkpoint",
    multiple=True,
    metavar="ARCH=FILE",
    help="Run a CompressAI architecture; repeated, its qualities in order.",
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(1),
    help="Processes at a time.  [one a processor, at most 8]",
)
@click.option("--threads", type=click.IntRange(1), default=1, help="Threads of each job.  [1]")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Where networks run.  [auto]",
)
@click.option(
    "--anchor",
    metavar="NAME|FILE.json",
    callback=_anchor,
    help="What BD-rates are against: a codec or a curve.  [avif, or the first]",
)
@click.option(
    "--output",
    "-o",
    metavar="FILE.json",
    type=_FILE,
    help="Keep results here; a second run continues.",
)
@click.option("--plot", metavar="FILE.svg|png", type=_FILE, help="Draw the curves.")
@click.option(
    "--html",
    "page",
    metavar="FILE.html",
    type=_FILE,
    help="Write curves, tables and images side by side as one page; with -o, "
    "what it takes is kept in FILE.images.",
)
@click.option(
    "--preset",
    type=click.Choice(["encoding-distributions"]),
    help="Run paper 1's experiment instead of --codecs.",
)
@click.option(
    "--static",
    metavar="FILE.safetensors",
    type=_FILE,
    help="With --preset: weights that hold trained tables.",
)
@click.option("--per-image", is_flag=True, help="Show each image's rows too.")
def bench(
    paths: tuple[Path, ...],
    codecs: list[str],
    qualities: tuple[str, ...],
    checkpoint: tuple[str, ...],
    jobs: int | None,
    threads: int,
    device: str,
    anchor: str | None,
    output: Path | None,
    plot: Path | None,
    page: Path | None,
    preset: str | None,
    static: Path | None,
    per_image: bool,
) -> None:
    """Measure codecs on images: rate, quality, time and memory.

    PATHS are folders of images, images, and curves in CompressAI's JSON schema to show beside.
    Prints a table; JSON where standard output is no terminal and there is no -o.
    """
    from licodec.bench import arguments, plots
    from licodec.bench.evaluate import BenchPlan, Outcome
    from licodec.bench.interface import Settings
    from licodec.bench.results import load_curves
    from licodec.errors import LicodecError

    if preset and (page or codecs or qualities or checkpoint or anchor or per_image):
        raise click.UsageError("--preset goes with --static, -o, --plot, -j and --device alone")
    if plot:
        plots.require(plot)
    for target in (output, plot, page):
        if target is not None and not target.absolute().parent.is_dir():
            raise click.BadParameter(f"{target.parent} is no folder")
    if static and not preset:
        raise click.UsageError("--static goes with --preset")
    given = [path for path in paths if arguments.is_curve(path)]
    references = [curve for path in given for curve in load_curves(path)]
    settings = Settings(threads, device, arguments.checkpoints(checkpoint))
    plan_qualities = arguments.plan_qualities(codecs, qualities, settings)
    anchor_curve = arguments.anchor_file(
        anchor, [*plan_qualities, *(curve.name for curve in references)]
    )

    sources = [path for path in paths if path not in given]
    if preset and not sources:
        raise click.UsageError("--preset needs images")
    images, unreadable = arguments.examine(sources)
    arguments.refuse_overwriting([output, plot, page], images)
    if sources and not images:
        raise LicodecError("nothing to measure: no readable image in " + _joined(sources))
    plan = BenchPlan(images, plan_qualities, settings, jobs or _processors(), _joined(sources))
    outcome = Outcome([])
    if preset and output is not None and output.exists():
        load_curves(output)  # refuses what is no earlier result
    if preset:
        _encoding_distributions(plan, static, output, plot)
    elif images:
        outcome = _measured(plan, output)
    curves = [*outcome.curves, *references]
    if any(curve.results.get("bpp") for curve in curves):
        against = arguments.choose_anchor(anchor, anchor_curve, curves)
        _present(plan, outcome, curves, against, output, plot, page, per_image)
    _finish(plan, outcome, unreadable, output)


def _measured(plan: BenchPlan, output: Path | None) -> Outcome:
    """Run the codecs, or go on from what the output holds."""
    from licodec.bench import arguments
    from licodec.bench.evaluate import evaluate
    from licodec.bench.results import load_curves, save_curves
    from licodec.errors import LicodecError
    from licodec.progress import Bar

    previous = load_curves(output) if output is not None and output.exists() else []

    def save(curves: list[Curve]) -> None:
        if output is not None and curves:
            save_curves(output, curves)

    with Bar("starting") as bar:
        outcome = evaluate(plan, previous, save, bar.count)
    for name, reason in outcome.missing.items():
        arguments.note(f"skipped {name}: {reason}")
    if not outcome.curves and not outcome.interrupted:
        raise LicodecError("none of these codecs can run here")
    return outcome


def _encoding_distributions(
    plan: BenchPlan, static: Path | None, output: Path | None, plot: Path | None
) -> None:
    """Run the preset, and show it."""
    from rich.console import Console

    from licodec.bench import paper1 as preset
    from licodec.bench import paper1_others as others
    from licodec.bench.plots import save_plot
    from licodec.bench.report import table
    from licodec.bench.results import save_curves, to_json
    from licodec.progress import Bar

    with Bar("starting") as bar:
        curves = preset.run(plan, static, bar.count)
        of_others = others.run(plan, bar.count)
    all_curves = [*curves.values(), *of_others.values()]
    if output is not None:
        save_curves(output, all_curves)
    if output is None and not sys.stdout.isatty():
        click.echo(to_json(all_curves, rows=False), nl=False)
    else:
        console = Console(width=None if sys.stdout.isatty() else 160)
        title = f"{plan.dataset}: {len(plan.images)} images"
        console.print(table(title, preset.bd_rates(curves)))
        console.print(table("side stream", preset.side_stream(curves)))
        console.print(table("other codecs", others.bd_rates(of_others)))
        console.print(table("complexity", preset.complexity(plan)))
    if plot is not None:
        save_plot(plot, list(curves.values()), "encoding distributions")


def _present(
    plan: BenchPlan,
    outcome: Outcome,
    curves: list[Curve],
    anchor: Curve,
    output: Path | None,
    plot: Path | None,
    page: Path | None,
    per_image: bool,
) -> None:
    """The table or the JSON, the plot and the page."""
    from rich.console import Console

    from licodec.bench import report
    from licodec.bench.results import AXES, save_curves, to_json

    for curve in outcome.curves:
        rates = {axis: report.compare(curve, anchor, axis) for axis in AXES}
        curve.meta["bd-rate"] = {"anchor": anchor.name, **rates}
    if output is not None and outcome.curves:
        save_curves(output, outcome.curves)
    title = f"{plan.dataset or 'curves'}: {len(plan.images)} images" if plan.images else "curves"
    if output is None and not sys.stdout.isatty() and outcome.curves:
        click.echo(to_json(outcome.curves, rows=per_image), nl=False)
    else:
        console = Console(width=None if sys.stdout.isatty() else 200)
        if per_image:
            console.print(
                report.table("per image", report.per_image(outcome.curves), rules=True), ""
            )
        if outcome.curves:
            console.print(report.table(title, report.points(outcome.curves), rules=True), "")
        jobs = f"Timed with {plan.jobs} jobs of {plan.settings.threads} threads at a time."
        for heading, content in report.summaries(curves, anchor).items():
            console.print(report.table(heading, content), "")
        if outcome.curves:
            console.print(jobs, style="dim")
        console.print(report.LEGEND, style="dim", width=min(100, console.width))
    if outcome.interrupted:  # an earlier plot or page is better than half of a new one
        return
    shown = curves if anchor in curves else [*curves, anchor]
    if plot is not None:
        from licodec.bench.plots import save_plot

        save_plot(plot, shown, title)
    if page is not None:
        from licodec.bench.comparison import compare_images
        from licodec.bench.html import save_page
        from licodec.progress import Bar

        kept = output.with_suffix(".images") if output is not None else None
        with Bar("starting") as bar:
            images = compare_images(plan, outcome.curves, kept, bar.count)
        save_page(page, f"licodec bench, {title}", shown, anchor, images)


def _finish(plan: BenchPlan, outcome: Outcome, unreadable: list[str], output: Path | None) -> None:
    """Say what is missing, and end with an exit code that says it too."""
    from licodec.bench.arguments import note

    for curve in outcome.curves:
        points = len(curve.results.get("bpp", []))
        qualities = len({row["quality"] for row in curve.rows})
        if points < qualities:
            note(f"{curve.name}: {qualities - points} of {qualities} qualities are incomplete")
    if outcome.interrupted:
        kept = f"what was measured is kept in {output}; the same command continues"
        if not outcome.curves:
            kept = "nothing was measured yet"
        elif output is None:
            kept = "what was measured is not kept: no -o"
        note(f"interrupted; {kept}")
        sys.exit(130)
    for failure in outcome.failures:
        note(failure)
    if unreadable:
        files = "1 file was" if len(unreadable) == 1 else f"{len(unreadable)} files were"
        note(f"{files} unreadable and left out; {len(plan.images)} images were measured")
    if unreadable or outcome.failures:
        sys.exit(1)


def _processors() -> int:
    """Processors this process may use; each job of a learned codec takes half a gigabyte."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(usable or 1, 8)


def _joined(paths: list[Path]) -> str:
    return ", ".join(path.name or str(path) for path in paths)
