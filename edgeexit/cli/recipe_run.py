"""A recipe run as a program: `python export/NAME.py --out BUNDLE` trains, evaluates and converts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from edgeexit.cli.evaluation_report import EvaluationReport, measure_latency, render_latency, write_report
from edgeexit.cli.present import ended
from edgeexit.cli.recipe_flow import (
    WORK,
    Choices,
    Prepared,
    Weights,
    conversion_plan,
    find_or_train,
    prepare,
)
from edgeexit.convert.conversion import convert
from edgeexit.convert.packers import Learning
from edgeexit.convert.progress import ProgressLines
from edgeexit.convert.report import render
from edgeexit.models.branch_config import BRANCH_KINDS
from edgeexit.training.images import write_images
from edgeexit.training.recipe import Recipe
from edgeexit.training.report import Evaluation, evaluate, render_evaluation


def run(recipe: Recipe, arguments: Sequence[str] | None = None) -> int:
    """Run a recipe from its data to its bundle, finding what was done before; the exit code."""
    options = _parser(recipe).parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    choices = Choices(
        tiny=options.tiny,
        data=options.data,
        work=options.work,
        seed=options.seed,
        seconds=options.train_seconds,
        branch=options.branch,
        weights=options.weights,
        download=options.download,
    )
    return ended(lambda: _run(recipe, choices, options), name=recipe.name)


def _run(recipe: Recipe, choices: Choices, options: argparse.Namespace) -> None:
    prepared = prepare(recipe, choices, say)
    weights = find_or_train(prepared, choices, say)
    found = describe(prepared)
    data = prepared.data
    report = convert(
        prepared.network,
        conversion_plan(prepared, weights.sha256),
        calibration=data.held_out,
        test=data.test,
        out=options.out,
        progress=ProgressLines(say),
        learning=Learning(prepared.source, prepared.key),
    )
    say(render(report))
    if options.report is not None:
        _write_report(prepared, weights, found, options)
    if options.images is not None:
        count = write_images(data.test, options.images, count=options.image_count)
        say(f"images     {count:,} test images in {options.images}")


def _write_report(
    prepared: Prepared, weights: Weights, found: Evaluation, options: argparse.Namespace
) -> None:
    """The evaluation, with what each exit of the bundle takes on this machine."""
    latency = measure_latency(options.out, checkpoint_sha256=weights.sha256, threads=1)
    written = EvaluationReport(
        name=prepared.recipe.name,
        checkpoint=weights.path.name,
        checkpoint_sha256=weights.sha256,
        data=prepared.data.name,
        skipped_images=prepared.data.skipped,
        evaluation=found,
        latency=latency,
    )
    say(render_latency(latency))
    for path in write_report(written, options.report):
        say(f"report     {path}")


def describe(prepared: Prepared) -> Evaluation:
    """Say what each exit costs and how often the float network is right there."""
    found = evaluate(prepared.network, prepared.data.held_out, prepared.data.test)
    for number, line in enumerate(render_evaluation(found).splitlines()):
        say(f"{'evaluate' if number == 0 else '':<10} {line}")
    return found


def say(line: str) -> None:
    """Write a line at once, for people and logs alike."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _parser(recipe: Recipe) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Train, evaluate and convert {recipe.name}.")
    parser.add_argument("--out", type=Path, required=True, help="where the bundle goes")
    parser.add_argument("--work", type=Path, default=WORK, help="where checkpoints are kept")
    parser.add_argument("--data", help="directory of the recipe's data, or KIND:PATH of your own")
    parser.add_argument("--report", type=Path, help="folder for the evaluation: JSON, curves, a page")
    parser.add_argument("--images", type=Path, help="also write test images as PNG files, here")
    parser.add_argument("--image-count", type=_count, default=2000, help="how many of them")
    parser.add_argument("--train-seconds", type=_positive, help="train no longer than this")
    parser.add_argument("--tiny", action="store_true", help="a small network on few images, within a minute")
    parser.add_argument("--branch", choices=BRANCH_KINDS, help="of the early exits")
    parser.add_argument(
        "--weights", "--checkpoint", type=Path, help="file or folder of the backbone's weights"
    )
    parser.add_argument("--download", action="store_true", help="let its library fetch the backbone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=_count, help="for training; all cores when left out")
    return parser
