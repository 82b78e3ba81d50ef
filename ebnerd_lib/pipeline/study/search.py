"""A search over parameter files, which the tuning day alone decides."""

import difflib
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.pipeline import layout
from ebnerd_lib.pipeline.config import checked_values, read_yaml
from ebnerd_lib.pipeline.layout import relative
from ebnerd_lib.pipeline.study.configuration import Configuration
from ebnerd_lib.pipeline.study.profile import MAIN, Model, models, trained
from ebnerd_lib.pipeline.study.static import TRAIN, TUNE

PREFIX = "search_"
_PROFILE = "profile"


def files() -> list[Path]:
    """Return the parameter files to search over, ``params/study/*.yaml``, by name."""
    return sorted((layout.ROOT / "params" / layout.SEARCHED).glob("*.yaml"))


def candidates(profile: str) -> list[Configuration]:
    """Return the configurations of a search: the profile's own main model, and one for each parameter file.

    Raises:
        ConfigError: a file is malformed, names no model of the profile, or has a key that its model does not use.
    """
    known = {model.name: model for model in models(profile)}
    own = trained(known[MAIN], f"{PREFIX}{_PROFILE}", procedure=TUNE)
    return [own, *(_candidate(file, known) for file in files())]


def changes_of(candidate: Configuration, profile: str) -> dict[str, Any]:
    """Return the parameters by which a candidate differs from its model as the profile trains it, and their values."""
    model = next(each for each in models(profile) if each.name == candidate.parameters["model"])
    own = trained(model).parameters
    return {name: value for name, value in candidate.parameters.items() if own.get(name) != value}


def choose(tuning: dict[str, list[float]]) -> str:
    """Return the name whose AUC on the tuning day is best in the mean over bundles; of equal ones the first.

    >>> choose({"a": [0.6, 0.7], "b": [0.8, 0.6], "c": [0.6, 0.8]})
    'b'
    """
    return max(tuning, key=lambda name: statistics.fmean(tuning[name]))


def judged(chosen: Configuration) -> Configuration:
    """Return the configuration that judges a choice on validation; the profile's own is the main model itself."""
    stem = chosen.name.removeprefix(PREFIX)
    return replace(chosen, name=MAIN if stem == _PROFILE else f"chosen_{stem}", procedure=TRAIN)


def _candidate(file: Path, known: dict[str, Model]) -> Configuration:
    given = read_yaml(file)
    name = given.pop("model", MAIN)
    if name not in known:
        raise ConfigError(f"{relative(file)}: model: '{name}' is none of the profile's: {', '.join(known)}.")
    model = known[name]
    usable = trained(model).parameters
    for key in given:
        if key not in usable or key in ("module", "model"):
            near = difflib.get_close_matches(str(key), usable, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"{name} uses {', '.join(usable)}."
            raise ConfigError(f"{relative(file)}: training {name} does not use the key '{key}'; {hint}")
    values = checked_values(given, model.stage, relative(file))
    return trained(model, f"{PREFIX}{file.stem}", procedure=TUNE, **values)
