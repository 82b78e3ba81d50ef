"""The command line: ``python -m ebnerd_lib <verb>``; the Makefile and the notebooks call the same functions."""

from __future__ import annotations  # the doctor runs on any Python

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, get_args

from ebnerd_lib.errors import EbnerdError

if (
    __name__ == "__main__" and sys.stdout and sys.stdout.errors != "replace"
    and {sys.getfilesystemencoding(), sys.stdout.encoding.lower()} != {"utf-8"}
):  # fmt: skip
    # pyarrow takes paths for UTF-8 in any locale, whose encoding may lack a character that is printed.
    printed = {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{sys.stdout.encoding}:replace"}
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **printed})

if sys.argv[1:3] == ["doctor", "--profile"] and importlib.util.find_spec("click") is None:
    from ebnerd_lib.pipeline.doctor import doctor as examine  # `make doctor` before there is a .venv

    sys.exit(examine(sys.argv[3]))

import click

from ebnerd_lib.configs import SplitName, Tier
from ebnerd_lib.pipeline.paths import DETERMINISM

INTERRUPTED = 130
"""Exit code of a program that was interrupted, as shells have it: 128 + SIGINT."""
PARTS = click.Choice(["validation", "tuning"])
TIERS = click.Choice([*get_args(Tier), "not declared"])
PROFILE = click.option("--profile", default="sample", show_default=True, help="a folder of params/")


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0 done, 1 failed with a message, 2 wrong usage, 130 interrupted."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with verbs.make_context("python -m ebnerd_lib", words) as context:
            return int(verbs.invoke(context) or 0)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except EbnerdError as error:
        # Names of files and columns may hold what commands a terminal.
        from ebnerd_lib.pipeline.runs import printable

        print(printable(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return INTERRUPTED


@click.group(help=__doc__)
def verbs() -> None:
    """Set what reproducibility depends on before a verb loads torch, which reads it once."""
    for name, value in DETERMINISM.items():
        os.environ.setdefault(name, value)


@verbs.command()
@PROFILE
@click.option("--jobs", type=click.IntRange(1), help="stages at a time (default: the number of cores)")
@click.option("--new", default="", help="a new variant, as 03_train_mlp.wide: write its file, run it and what reads it")
@click.option("--set", "assignments", default="", metavar="PAIRS", help="its parameters: 'epochs=3; trainer.devices=2'")
@click.option("--only", default="", help="run these stages alone, by name or pattern")
@click.option("--from", "start", default="", help="run these stages and what reads them")
@click.option("--force", is_flag=True, help="run also what is up to date")
def run(profile: str, jobs: int | None, new: str, assignments: str, only: str, start: str, force: bool) -> int:
    """Run the stale stages of a profile and render their reports."""
    from ebnerd_lib.pipeline.experiments import write_variant
    from ebnerd_lib.pipeline.params import read_assignments
    from ebnerd_lib.pipeline.run import run

    if assignments and not new:
        raise click.UsageError("SET is of a new variant: name it with NEW, or edit the parameter file of a stage.")
    if new:
        write_variant(profile, new, read_assignments(assignments, "SET"), "SET")
    return run(profile, jobs, only, start or ("" if only else new), force)


@verbs.command()
@click.option("--run", "source", required=True, help="a run by hand, as smoke/03_train_mlp.lab1")
@click.option("--new", required=True, help="the variant to write, as 03_train_mlp.wide")
def keep(source: str, new: str) -> None:
    """Keep the parameters of a run as a variant of its profile."""
    from ebnerd_lib.pipeline.experiments import keep

    keep(source, new)
    profile = source.partition("/")[0]
    print(f"params/{profile}/{new}.yaml: written. Train it with `make run-all PROFILE={profile} FROM={new}`.")


@verbs.command()
@PROFILE
@click.option("--stage", default="", help="a stage or run by hand, or a pattern (default: all of the profile)")
def clean(profile: str, stage: str) -> None:
    """Remove outputs of a profile, or of some of its stages."""
    from ebnerd_lib.pipeline.experiments import clean

    print(f"outputs/{profile}: removed {', '.join(clean(profile, stage)) or 'nothing'}.")


@verbs.command()
@PROFILE
def lab(profile: str) -> None:
    """Write copies of a profile's notebooks, with its parameters, for JupyterLab."""
    from ebnerd_lib.pipeline.lab import write_copies

    for line in write_copies(profile):
        print(line)


@verbs.command()
def reports() -> None:
    """Render the pages of all profiles again, without running anything."""
    from ebnerd_lib.pipeline.report import overview_file, render_all

    for line in render_all():
        print(line)
    print(f"index of all: {overview_file().relative_to(overview_file().parents[1])}")


@verbs.command(short_help="run a training stage without its notebook, under torchrun or srun on several processes")
@PROFILE
@click.option("--stage", required=True, help="a training stage of the profile, as 03_train_mlp.exposure")
@click.option("--set", "assignments", multiple=True, metavar="PAIRS", help="parameters: 'epochs=3; trainer.devices=2'")
def train(profile: str, stage: str, assignments: tuple[str, ...]) -> None:
    """Train the model of a stage without its notebook: the same artifacts, and no report.

    Parameters are those of the profile. `torchrun --nproc-per-node 2 -m ebnerd_lib train ...` trains on two processes:
    batch_size stays the number of slates a batch over all of them, each takes its share, and devices, num_nodes and
    strategy follow from how they were started. See docs/scaling.md.
    """
    from ebnerd_lib.pipeline.train import train

    train(profile, stage, ";".join(assignments))


@verbs.command(short_help="search over the parameters of a training stage, on as many processes as are started")
@PROFILE
@click.option("--stage", default="03_train_mlp", show_default=True, help="a training stage of the profile")
@click.option("--trials", default=20, show_default=True, type=click.IntRange(1), help="over all processes")
def tune(profile: str, stage: str, trials: int) -> int:
    """Search over the parameters of a training stage by the metric of the tuning day, and report in 07_tune.

    What is searched stands in params/tune.yaml. A search that was stopped resumes; the same command in another
    terminal, or on another machine that shares the folder outputs/, works on the same search.
    """
    from ebnerd_lib.pipeline.tune import tune

    return tune(profile, stage, trials)


@verbs.command()
@click.option("--runs", required=True, help="PROFILE/STAGE of each, spaces between them; the first is the reference")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1, 100), help="trainings of each run")
def compare(runs: str, seeds: int) -> None:
    """Put finished training runs side by side on one page: parameters, paired differences, learning curves.

    With --seeds each run is trained again with that many seeds in all, for the mean and spread of its AUC.
    """
    from ebnerd_lib.pipeline.compare import compare

    print(f"page: {compare(runs.split(), seeds)}")


@verbs.command()
@click.option("--out", type=Path, required=True, help="folder to write")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="same seed, same bytes")
@click.option(
    "--size", default="demo", show_default=True, type=click.Choice(["smoke", "demo", "small", "tenth", "large"]),
    help="of the bundle",
)  # fmt: skip
@click.option("--test", is_flag=True, help="generate the hidden test week that follows the bundle")
def sample(out: Path, seed: int, size: str, test: bool) -> None:
    """Generate a bundle in EBNeRD's schema by simulating a news site."""
    from ebnerd_lib.sample import generate

    generate(out, seed, size, test)


@verbs.command()
@click.option(
    "--bundle", required=True, help="ebnerd_demo, ebnerd_small, ebnerd_large, ebnerd_testset or ebnerd_vectors"
)
@click.option("--url", help="of the archive or of the folder it lies in (default: EBNERD_URL, else as published)")
@click.option("--sha256", help="checksum that the archive must have")
@click.option(
    "--accept-license", is_flag=True, help="you have read and accept the licence terms, as ACCEPT_LICENSE=yes"
)
@click.option("--out", type=Path, default=Path("data"), show_default=True, help="folder of the bundles")
def download(bundle: str, url: str | None, sha256: str | None, accept_license: bool, out: Path) -> None:
    """Fetch a bundle of EBNeRD from its published address, check it and unpack it."""
    from ebnerd_lib.data.download import download

    accepted = accept_license or os.environ.get("ACCEPT_LICENSE") == "yes"
    try:
        folder = download(bundle, out, accepted, url or os.environ.get("EBNERD_URL"), sha256)
    except KeyboardInterrupt:
        if (out / f".{bundle}.download" / "archive").exists():
            print("\nWhat has come is kept: rerun the command to resume.", file=sys.stderr)
        raise
    after = {"ebnerd_testset": "see docs/submission.md", "ebnerd_vectors": "see data/README.md"}
    print(f"{folder} is whole. Next: {after.get(bundle, f'make run-all PROFILE={bundle}')}")


@verbs.command("convert-mind")
@click.option("--train", type=Path, required=True, help="folder of the first part, as MINDsmall_train")
@click.option("--validation", type=Path, required=True, help="folder of the part after it, as MINDsmall_dev")
@click.option("--vectors", type=click.Path(exists=True, path_type=Path), help="parquet of article vectors")
@click.option("--out", type=Path, default=Path("data/mind_small"), show_default=True, help="folder to write")
def convert_mind(train: Path, validation: Path, vectors: Path | None, out: Path) -> None:
    """Write MIND, the Microsoft News Dataset, as a bundle in EBNeRD's schema."""
    from ebnerd_lib.data.mind import convert

    counts = convert(train, validation, out, vectors)
    print(f"{out} is whole: {', '.join(f'{count:,} {what}' for what, count in counts.items())}.")


@verbs.command()
@PROFILE
def doctor(profile: str) -> int:
    """See what is there, what is wrong for a profile, and what to do about it."""
    from ebnerd_lib.pipeline.doctor import doctor

    return doctor(profile)


@verbs.command()
@click.option("--archive", type=Path, required=True, help="zip file")
@click.option("--out", type=Path, required=True, help="folder to write, as data/ebnerd_demo")
def unpack(archive: Path, out: Path) -> None:
    """Unpack a downloaded bundle, refusing an archive that is unsafe or not whole."""
    from ebnerd_lib.data.download import unpack

    unpack(archive, out)
    print(f"unpacked to {out}")


@verbs.command(context_settings={"show_default": True})
@click.option("--scores", type=Path, required=True, help="parquet: impression_id, article_id, score")
@click.option("--bundle", type=Path, required=True, help="folder of the bundle that was scored")
@click.option("--split", "part", default="validation", type=PARTS, help="part that was scored")
@click.option("--tier", default="not declared", type=TIERS, help="what the scorer knows")
@click.option("--tuning", type=Path, help="its scores of the tuning day, for log loss and calibration")
@click.option("--reference", type=Path, help="scores to compare with, impression by impression")
@click.option("--out", type=Path, help="folder to write (default: outputs/evaluate/<name of the file>)")
@click.option("--cut", default="official", type=click.Choice(get_args(SplitName)), help="how it is split into parts")
def evaluate(**given: Any) -> None:
    """Evaluate scores that come from elsewhere, as 05_compare does."""
    from ebnerd_lib.pipeline.evaluate import evaluate

    evaluate(**given)


@verbs.command()
@PROFILE
@click.option("--model", required=True, help="a model of tier exposure or below, such as mlp_exposure")
@click.option("--test", type=Path, required=True, help="folder of the test set: articles.parquet, test/")
@click.option("--out", type=Path, default=Path("predictions.zip"), show_default=True, help="file")
def submit(profile: str, model: str, test: Path, out: Path) -> None:
    """Rank the hidden test set with a trained model and write the file to send."""
    from ebnerd_lib.pipeline.submission import submit

    submit(profile, model, test, out)


@verbs.command("check-submission")
@click.option("--file", type=Path, required=True, help="the zip file")
@click.option("--test", type=Path, required=True, help="folder of the test set: articles.parquet, test/")
def check_submission(file: Path, test: Path) -> None:
    """Check that a submission ranks every row of a test set."""
    from ebnerd_lib.pipeline.submission import check_submission

    lines = check_submission(file, test)
    print(f"{file}: {lines:,} lines, every one a permutation for its row of {test}.")


if __name__ == "__main__":
    code = main()
    if code == INTERRUPTED:  # without waiting for threads whose peers have ended
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
