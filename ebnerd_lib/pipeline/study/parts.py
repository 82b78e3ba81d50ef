"""The parts of a study: which configurations each needs, by what varies in it."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.evaluation import reference
from ebnerd_lib.features.registry import TIERS, allowed, every_column
from ebnerd_lib.pipeline.study.configuration import Configuration
from ebnerd_lib.pipeline.study.profile import Model, boosted, learning_on, main_model, models, trained
from ebnerd_lib.pipeline.study.search import candidates

SHARES = (0.25, 0.5, 1.0)
TRAINING_SEEDS = 3
SENTIMENT = "sentiment"
_SENTIMENT = re.compile("sentiment|negative|positive")


@dataclass(frozen=True)
class LeftOut:
    """A refit without some columns.

    Attributes:
        title: what is left out.
        columns: their names, those that the tier would see.
        name: of the configuration without them.
        full: of the configuration with them.
    """

    title: str
    columns: list[str]
    name: str
    full: str


def scorers(profile: str) -> list[Configuration]:
    """Return every model static, learning on and in every tier that it may have, and LightGBM."""
    found: list[Configuration] = []
    for model in models(profile):
        found.append(trained(model))
        found += [trained(model, tier_name(model, tier), tier) for tier in other_tiers(model)]
        found += [each for each in [learning_on(model)] if each]
    return [*found, boosted(main_model(profile))]


def other_tiers(model: Model) -> list[str]:
    """Return the tiers beside its main one that a model can be trained for; a model without features has none."""
    return [tier for tier in TIERS[1:] if model.kind.uses_features and tier != model.tier]


def tier_name(model: Model, tier: str) -> str:
    """Return the name of a model trained for a tier, as the notebooks give it."""
    return model.name if tier == model.tier else f"{model.name}_{tier}"


def left_out(profile: str) -> list[LeftOut]:
    """Return what the main model is trained without: each group of the registry, and in each tier all of sentiment."""
    model = main_model(profile)
    seen = set(allowed(model.tier))
    groups: dict[str, list[str]] = {}
    for column in every_column():
        if column.name in seen:
            groups.setdefault(column.group, []).append(column.name)
    found = [
        LeftOut(title, columns, f"{model.name}_without_{title.replace(' ', '_')}", model.name)
        for title, columns in groups.items()
        if title != SENTIMENT
    ]
    for tier in [model.tier, *other_tiers(model)]:
        columns = [name for name in allowed(tier) if _SENTIMENT.search(name)]
        full = tier_name(model, tier)
        found.append(LeftOut(f"all of {SENTIMENT}", columns, f"{full}_without_{SENTIMENT}", full))
    return [entry for entry in found if entry.columns]


def groups(profile: str) -> list[Configuration]:
    """Return the main model with all columns, under several seeds of training, and without each group."""
    model = main_model(profile)
    tiers = {tier_name(model, tier): tier for tier in [model.tier, *other_tiers(model)]}
    found = {each.name: each for each in reseeded(model)}
    for entry in left_out(profile):
        tier = tiers[entry.full]
        found[entry.full] = trained(model, entry.full, tier)
        found[entry.name] = trained(model, entry.name, tier, leave_out=entry.columns)
    return list(found.values())


def seeds_of_training(profile: str) -> list[list[Configuration]]:
    """Return every scorer of the main tier under several seeds of training, the profile's own first."""
    model = main_model(profile)
    boosters = [boosted(model), *(boosted(model, f"{reference.NAME}_seed_{s}", seed=s) for s in _more_seeds(model))]
    return [*(reseeded(each) for each in models(profile)), boosters]


def reseeded(model: Model) -> list[Configuration]:
    """Return a model under several seeds of training, the profile's own first."""
    return [trained(model), *(trained(model, f"{model.name}_seed_{s}", seed=s) for s in _more_seeds(model))]


def _more_seeds(model: Model) -> range:
    """Return seeds after a model's own; one that averages several networks takes as many seeds each time."""
    first, networks = model.given["seed"], model.given.get("seeds", 1)
    return range(first + networks, first + networks * TRAINING_SEEDS, networks)


def shares_of_days(profile: str) -> list[dict[float, Configuration]]:
    """Return every scorer of the main tier trained on several shares of the training days, the latest ones kept."""
    makers: list[Callable[..., Configuration]] = []
    for model in models(profile):
        makers.append(lambda *given, own=model, **changes: trained(own, *given, **changes))
    main = main_model(profile)
    makers.append(lambda *given, **changes: boosted(main, *given, **changes))
    return [
        {
            share: make() if share == 1 else make(f"{make().name}_days_{share:.0%}".rstrip("%"), share_of_days=share)
            for share in SHARES
        }
        for make in makers
    ]


PARTS: dict[str, Callable[[str], list[Configuration]]] = {
    "seeds": scorers,
    "groups": groups,
    "training": lambda profile: [each for scorer in seeds_of_training(profile) for each in scorer],
    "days": lambda profile: [each for scorer in shares_of_days(profile) for each in scorer.values()],
    "search": candidates,
}
"""The configurations of each part."""
ONE_BUNDLE = {"training"}
"""Parts that take the first bundle only, since something else than the bundle varies in them."""


def check_parts(parts: list[str]) -> None:
    """Raise ``ConfigError`` unless ``parts`` are one or more different parts."""
    if not parts or len(set(parts)) < len(parts) or not set(parts) <= set(PARTS):
        raise ConfigError(f"parts: {','.join(parts)} must be one or more different ones of {','.join(PARTS)}.")
