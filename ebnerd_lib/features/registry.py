"""The registry of features: a name, an information tier, a unit and a formula for each column.

A **family** is one function that computes one or several columns, from chunks of slates in order of time and the past
before them, or from columns of other families that it reads.

Adding a feature is one such function, in any module of this package that ``catalogue`` imports.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.features.context import Chunk

TIER_MEANINGS = {
    "ids": "the identities of users and articles, as far as training saw them",
    "content": "also what was published before t, the user's own history and the request",
    "exposure": "also what was in view before t",
    "clicks": "also what was clicked before t and the page being read",
}
"""What a scorer of each tier may know when it scores an impression at time t; each adds to the one before."""
TIERS = tuple(TIER_MEANINGS)
BARRED = {
    **dict.fromkeys(("total_inviews", "total_pageviews", "total_read_time"), "it sums up the week after publication"),
    **dict.fromkeys(("next_read_time", "next_scroll_percentage"), "it is the outcome of the click"),
    **dict.fromkeys(("read_time", "scroll_percentage"), "it is known only after the page was left"),
    "last_modified_time": "articles were reprocessed in bulk months later",
}
"""Columns of a bundle that know the future, and why; no feature may be registered on them."""


@dataclass(frozen=True)
class Column:
    """One feature: a column over candidates."""

    name: str  # unique
    tier: str  # the least information tier that may use it
    group: str  # what it tells about, for explanations and importances
    unit: str
    formula: str  # what it is at the time t of an impression, for candidate a and user u


@dataclass(frozen=True)
class Family:
    """A function that computes ``columns`` of a chunk as an array (candidates of the chunk, columns)."""

    columns: tuple[Column, ...]
    compute: Callable[[Chunk], np.ndarray]
    reads: tuple[str, ...]


FAMILIES: list[Family] = []
"""In order of registration: a family only reads columns of earlier ones."""


def family(
    *columns: Column, reads: tuple[str, ...] = ()
) -> Callable[[Callable[[Chunk], np.ndarray]], Callable[[Chunk], np.ndarray]]:
    """Register a feature function.

    Args:
        columns: the columns it returns, in order.
        reads: names of columns of other families that it is computed from; the past it does not see then.

    Raises:
        ConfigError: a name is taken, a tier is unknown, what it reads does not exist or knows more than its own
            tier may, or it is made of a column that knows the future.
    """

    def register(compute: Callable[[Chunk], np.ndarray]) -> Callable[[Chunk], np.ndarray]:
        known = {column.name: column for column in every_column()}
        missing = [column for column in reads if column not in known]
        if missing:
            raise ConfigError(
                f"feature family {compute.__name__} reads {', '.join(missing)}. Register these before it."
            )
        for column in columns:
            if column.name in known:
                raise ConfigError(f"feature {column.name} is registered twice. Choose another name.")
            if column.tier not in TIERS:
                raise ConfigError(
                    f"feature {column.name}: tier '{column.tier}' is unknown. Use one of {', '.join(TIERS)}."
                )
            for word in re.findall(r"\w+", f"{column.name} {column.formula}"):
                if word in BARRED:
                    raise ConfigError(f"feature {column.name}: {word} may not be used: {BARRED[word]}.")
            barred = [each for each in reads if TIERS.index(known[each].tier) > TIERS.index(column.tier)]
            if barred:
                raise ConfigError(
                    f"feature {column.name}: tier {column.tier} may not know {', '.join(barred)}. "
                    "Declare a higher tier, or a family of its own for it."
                )
        FAMILIES.append(Family(columns, compute, reads))
        return compute

    return register


def every_column() -> list[Column]:
    """Return all registered columns in the order in which they stand in a features file."""
    return [column for entry in FAMILIES for column in entry.columns]


def allowed(tier: str) -> list[str]:
    """Return the names of the columns that a model of an information tier may see.

    Raises:
        ConfigError: the tier is unknown.
    """
    if tier not in TIERS:
        raise ConfigError(f"tier '{tier}' is unknown. Use one of {', '.join(TIERS)}.")
    return [column.name for column in every_column() if TIERS.index(column.tier) <= TIERS.index(tier)]


def columns_named(names: Sequence[str]) -> set[str]:
    """Return the columns that some names of columns and of groups stand for; a column comes before a group.

    Raises:
        ConfigError: a name is neither.
    """
    columns = every_column()
    found: set[str] = set()
    for name in names:
        own = {column.name for column in columns if column.name == name}
        own = own or {column.name for column in columns if column.group == name}
        if not own:
            known = sorted({entry for column in columns for entry in (column.name, column.group)})
            near = difflib.get_close_matches(name, known, 1) or sorted({column.group for column in columns})
            raise ConfigError(f"features: '{name}' is no column and no group of columns. Use {', '.join(near)}.")
        found |= own
    return found
