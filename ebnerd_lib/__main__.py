"""The command line: ``python -m ebnerd_lib <verb>``; the Makefile and the notebooks call the same functions."""

from __future__ import annotations  # the doctor runs on any Python

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from ebnerd_lib.errors import EbnerdError

INTERRUPTED = 130
"""Exit code of a program that was interrupted, as shells have it: 128 + SIGINT."""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0 done, 1 failed with a message, 2 wrong usage, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.verb(options))
    except EbnerdError as error:
        # Names of files and columns may hold what commands a terminal.
        from ebnerd_lib.pipeline.pages.page import printable

        print(printable(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ebnerd_lib", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="verb")

    run = verbs.add_parser("run", help="run the stale stages of a profile and render their reports")
    run.add_argument("--profile", default="sample", help="a folder of params/ (default: sample)")
    run.add_argument("--jobs", type=int, help="stages at a time (default: the number of cores)")
    run.set_defaults(verb=_run)

    reports = verbs.add_parser("reports", help="render the pages of all profiles again, without running anything")
    reports.set_defaults(verb=_reports)

    train = verbs.add_parser(
        "train",
        help="run a training stage without its notebook, under torchrun or srun on several processes",
        description="Run the stage that trains some models, without its notebook: the same artifacts, and no report. "
        "Parameters are those of the profile. `torchrun --nproc-per-node 2 -m ebnerd_lib train ...` trains on two "
        "processes: batch_size stays the number of slates a batch over all of them, each takes its share, and "
        "devices, num_nodes and strategy follow from how they were started. See docs/scaling.md.",
    )
    train.add_argument("--profile", default="sample", help="a folder of params/ (default: sample)")
    train.add_argument("--model", type=_names, required=True, help="models of one stage, as mlp or mf_ids,mf_features")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter of the stage, may be repeated"
    )
    train.set_defaults(verb=_train)

    sample = verbs.add_parser("sample", help="generate a bundle in EBNeRD's schema by simulating a news site")
    sample.add_argument("--out", type=Path, required=True, help="folder to write")
    sample.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: 0)")
    sample.add_argument("--size", default="demo", help="smoke, demo, small, tenth or large (default: demo)")
    sample.add_argument("--test", action="store_true", help="generate the hidden test week that follows the bundle")
    sample.set_defaults(verb=_sample)

    download = verbs.add_parser(
        "download", help="fetch a bundle of EBNeRD from its published address, check it and unpack it"
    )
    download.add_argument(
        "--bundle", required=True, help="ebnerd_demo, ebnerd_small, ebnerd_large, ebnerd_testset or ebnerd_vectors"
    )
    download.add_argument(
        "--url", help="of the archive or of the folder it lies in (default: EBNERD_URL, else as published)"
    )
    download.add_argument("--sha256", help="sum that the archive must have")
    download.add_argument(
        "--accept-license",
        action="store_true",
        help="you have read and accept the licence terms, as ACCEPT_LICENSE=yes",
    )
    download.add_argument("--out", type=Path, default=Path("data"), help="folder of the bundles (default: data)")
    download.set_defaults(verb=_download)

    doctor = verbs.add_parser("doctor", help="see what is there, what is wrong for a profile, and what to do about it")
    doctor.add_argument("--profile", default="sample", help="a folder of params/ (default: sample)")
    doctor.set_defaults(verb=_doctor)

    unpack = verbs.add_parser(
        "unpack", help="unpack a downloaded bundle, refusing an archive that is unsafe or not whole"
    )
    unpack.add_argument("--archive", type=Path, required=True, help="zip, tar or tar.gz file")
    unpack.add_argument("--out", type=Path, required=True, help="folder to write, as data/ebnerd_demo")
    unpack.set_defaults(verb=_unpack)

    evaluate = verbs.add_parser("evaluate", help="evaluate scores that come from elsewhere, as 05_compare does")
    evaluate.add_argument("--scores", type=Path, required=True, help="parquet: impression_id, article_id, score")
    evaluate.add_argument("--bundle", type=Path, required=True, help="folder of the bundle that was scored")
    evaluate.add_argument("--split", default="validation", help="part that was scored: validation or tuning")
    evaluate.add_argument(
        "--tier", default="not declared", help="what the scorer knows: ids, content, exposure, clicks"
    )
    evaluate.add_argument("--tuning", type=Path, help="its scores of the tuning day, for log loss and calibration")
    evaluate.add_argument("--reference", type=Path, help="scores to compare with, impression by impression")
    evaluate.add_argument("--out", type=Path, help="folder to write (default: outputs/evaluate/<name of the file>)")
    evaluate.add_argument("--cut", default="official", help="how the bundle is split into parts: official or quantile")
    evaluate.set_defaults(verb=_evaluate)

    submit = verbs.add_parser("submit", help="rank the hidden test set with a trained model and write the file to send")
    submit.add_argument("--profile", default="sample", help="in which the model was trained (default: sample)")
    submit.add_argument("--model", required=True, help="a model of tier exposure or below, such as mlp_exposure")
    submit.add_argument("--test", type=Path, required=True, help="folder of the test set: articles.parquet, test/")
    submit.add_argument("--out", type=Path, default=Path("predictions.zip"), help="file (default: predictions.zip)")
    submit.set_defaults(verb=_submit)

    check = verbs.add_parser("check-submission", help="check that a submission ranks every row of a test set")
    check.add_argument("--file", type=Path, required=True, help="the zip file")
    check.add_argument("--test", type=Path, required=True, help="folder of the test set: articles.parquet, test/")
    check.set_defaults(verb=_check_submission)
    return parser


def _run(options: argparse.Namespace) -> int:
    from ebnerd_lib.pipeline.runner import run

    return run(options.profile, options.jobs)


def _reports(options: argparse.Namespace) -> int:
    from ebnerd_lib.pipeline.pages.report import overview_file, render_all

    for line in render_all():
        print(line)
    print(f"index of all: {overview_file().relative_to(overview_file().parents[1])}")
    return 0


def _train(options: argparse.Namespace) -> int:
    _be_deterministic()
    from ebnerd_lib.pipeline.train import train

    train(options.profile, options.model, options.set)
    return 0


def _sample(options: argparse.Namespace) -> int:
    from ebnerd_lib.sample import generate, generate_test

    (generate_test if options.test else generate)(options.out, seed=options.seed, size=options.size)
    return 0


def _download(options: argparse.Namespace) -> int:
    from ebnerd_lib.data.download import ask_terms, download, next_command, pending

    given = options.accept_license or os.environ.get("ACCEPT_LICENSE") == "yes"
    url = options.url or os.environ.get("EBNERD_URL")
    try:
        folder = download(options.bundle, options.out, lambda: ask_terms(options.bundle, given), url, options.sha256)
    except KeyboardInterrupt:
        if options.bundle in pending(options.out):
            print("\nWhat has come is kept: the same command goes on from there.", file=sys.stderr)
        raise
    print(f"next: {next_command(options.bundle, folder)}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from ebnerd_lib.pipeline.doctor.run import doctor

    return doctor(options.profile)


def _unpack(options: argparse.Namespace) -> int:
    from ebnerd_lib.data.archive import unpack

    unpack(options.archive, options.out)
    print(f"unpacked to {options.out}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from ebnerd_lib.pipeline.evaluate import evaluate

    evaluate(
        options.scores, options.bundle, options.split, options.tier, options.tuning, options.reference, options.out,
        options.cut,
    )  # fmt: skip
    return 0


def _submit(options: argparse.Namespace) -> int:
    _be_deterministic()
    from ebnerd_lib.pipeline.submission.submit import submit

    submit(options.profile, options.model, options.test, options.out)
    return 0


def _check_submission(options: argparse.Namespace) -> int:
    from ebnerd_lib.pipeline.submission.check import check_submission
    from ebnerd_lib.pipeline.submission.progress import Progress

    lines = check_submission(options.file, options.test, Progress(print).step)
    print(f"{options.file}: {lines:,} lines, every one a permutation for its row of {options.test}.")
    return 0


def _be_deterministic() -> None:
    """Set what the same bytes hang on, before torch is loaded, which reads it once."""
    from ebnerd_lib.pipeline.runner import DETERMINISM

    for name, value in DETERMINISM.items():
        os.environ.setdefault(name, value)


def _names(text: str) -> list[str]:
    return text.split(",")


def _leave(code: int) -> NoReturn:
    """End the program, after an interruption without waiting for threads that wait for what is no more."""
    if code == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _leave(main())
