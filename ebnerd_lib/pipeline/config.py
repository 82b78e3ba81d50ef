"""Typed parameters: a notebook's cell tagged ``parameters`` is the schema, a YAML file holds what differs.

A line of the cell declares one parameter, and the end of its help the values that it may take::

    epochs: int = 12  # at the most, in [1, 1000]
    tiers: list[str] = ["clicks"]  # the first is the main one, 1 to 4 in {ids, content, exposure, clicks}

The forms of the latter are those of ``ebnerd_lib.pipeline.domain``. Every source of values, a file as well as a
notebook's variables, is checked against both type and values. Standard library and YAML only, since this runs before
anything heavy is loaded.
"""

import ast
import difflib
import io
import json
import math
import re
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.pipeline.domain import Domain, read_domain, shown
from ebnerd_lib.pipeline.paths import notebook_path, parameter_file, relative

_SCALARS: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
_PLAIN_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9_]*)?(\.[0-9_]*)?([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)", re.IGNORECASE)
_LARGEST, _DEEPEST = 1 << 16, 8
_TYPES = {*_SCALARS, *(f"list[{name}]" for name in _SCALARS)}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook: a line ``name: type = literal  # help, in DOMAIN`` of its parameters cell."""

    name: str
    type: str
    default: Any
    help: str
    domain: Domain | None = None

    def checked(self, value: Any, where: str) -> Any:
        """Return a value in the parameter's type.

        Args:
            value: as it was given.
            where: the file that it comes from, for messages.

        Raises:
            ConfigError: the value is of another type, or outside the domain.
        """
        value = _checked(self.name, self.type, value, where)
        fault = self.domain.fault(self.name, value) if self.domain is not None else ""
        if fault:
            raise ConfigError(f"{where}: {fault}")
        return value


@dataclass(frozen=True)
class StageConfig:
    """The effective parameters of a stage, and those among them that the parameter file gives."""

    stage: str
    profile: str
    parameters: dict[str, Any]
    given: dict[str, Any]

    @property
    def reads(self) -> list[str]:
        """The stages whose artifacts this one reads."""
        return list(self.parameters.get("reads", []))


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    """Return the code cells of a notebook file, ``source`` joined to one string.

    Raises:
        ConfigError: the file is missing or no notebook.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return [{**cell, "source": "".join(cell["source"])} for cell in cells if cell["cell_type"] == "code"]
    except FileNotFoundError:
        raise ConfigError(f"{relative(notebook)}: no such notebook.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{relative(notebook)}: not a notebook ({error}). Restore it from git.") from error


def read_schema(notebook: Path) -> dict[str, Parameter]:
    """Return the parameters that a notebook declares, in order.

    Raises:
        ConfigError: there is not exactly one cell tagged ``parameters``, a line of it is not of the form
            ``name: type = literal  # help``, or a default is not among the values that its help declares.
    """
    tagged = [c for c in code_cells(notebook) if "parameters" in c.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise ConfigError(f"{relative(notebook)}: {len(tagged)} cells are tagged 'parameters'; there must be one.")
    source = tagged[0]["source"]
    try:
        statements = ast.parse(source).body
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, tokenize.TokenError, ValueError) as error:
        raise ConfigError(f"{relative(notebook)}: the parameters cell is not Python ({error}). Mend it.") from None
    comments = {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}
    schema: dict[str, Parameter] = {}
    for node in statements:
        line = source.splitlines()[node.lineno - 1]
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or node.value is None:
            raise ConfigError(f"{relative(notebook)}: '{line}' is not of the form `name: type = literal  # help`.")
        kind, name = ast.unparse(node.annotation), node.target.id
        if kind not in _TYPES:
            raise ConfigError(
                f"{relative(notebook)}: parameter {name}: type {kind}; use one of {', '.join(sorted(_TYPES))}."
            )
        try:
            default = ast.literal_eval(node.value)
        except (ValueError, TypeError, MemoryError, RecursionError):
            raise ConfigError(f"{relative(notebook)}: parameter {name}: its default must be a literal.") from None
        help_text = comments.get(node.end_lineno or node.lineno, "")
        try:
            domain = read_domain(help_text, kind)
        except ValueError as error:
            raise ConfigError(f"{relative(notebook)}: parameter {name}: {error}. Mend the end of its help.") from None
        parameter = Parameter(name, kind, default, help_text, domain)
        schema[name] = replace(parameter, default=parameter.checked(default, relative(notebook)))
    return schema


def load_config(profile: str, stage: str) -> StageConfig:
    """Return the checked parameters of a stage in a profile.

    Raises:
        ConfigError: the YAML is malformed, has a key that the notebook does not declare, or a value of a
            wrong type or beyond those declared; the message names file, key, value and the nearest valid one.
    """
    file = parameter_file(profile, stage)
    given = checked_values(read_yaml(file), stage, relative(file))
    schema = read_schema(notebook_path(stage))
    parameters = {name: given.get(name, parameter.default) for name, parameter in schema.items()}
    if "profile" in schema:
        parameters["profile"] = profile
    return StageConfig(stage, profile, parameters, given)


def with_assignments(config: StageConfig, assignments: Iterable[str]) -> StageConfig:
    """Return the parameters of a stage with some set anew.

    Args:
        config: the parameters.
        assignments: texts of the form ``key=value``, the value as it stands in a parameter file; of two for one key
            the last one counts.

    Raises:
        ConfigError: a text is of another form, or its key or value is refused as in a file.
    """
    values: dict[str, Any] = {}
    for text in assignments:
        key, given, value = text.partition("=")
        try:
            values[key] = yaml.load(value, Loader=_PlainLoader)
        except yaml.YAMLError:
            given = ""
        if not given:
            raise ConfigError(f"--set: {shown(text)} is not of the form key=value. Write it as `--set epochs=3`.")
    return with_values(config, values, "--set")


def with_values(config: StageConfig, values: dict[str, Any], where: str) -> StageConfig:
    """Return the parameters of a stage with some set anew, checked as ``checked_values`` does."""
    checked = checked_values(values, config.stage, where)
    return replace(config, parameters={**config.parameters, **checked}, given={**config.given, **checked})


def checked_values(given: dict[str, Any], stage: str, where: str) -> dict[str, Any]:
    """Return values for parameters of a stage, each of the type and among the values that the notebook declares.

    Args:
        given: by name of the parameter.
        stage: whose notebook declares them.
        where: the file they come from, for messages.

    Raises:
        ConfigError: a name is not declared, or a value is of a wrong type or not among those declared.
    """
    schema = read_schema(notebook_path(stage))
    checked = {}
    for key, value in given.items():
        if key == "profile":
            raise ConfigError(f"{where}: profile is given by the folder's name. Remove the key.")
        if key not in schema:
            near = difflib.get_close_matches(str(key), set(schema), 1)
            hint = (
                f"did you mean '{near[0]}'?"
                if near
                else f"valid keys: {', '.join(k for k in schema if k != 'profile')}."
            )
            raise ConfigError(f"{where}: unknown key {shown(key)}; {hint}")
        checked[key] = schema[key].checked(value, where)
    return checked


def from_namespace(stage: str, namespace: Mapping[str, Any]) -> StageConfig:
    """Return the parameters as they stand in a notebook's variables, checked as those of a file are."""
    schema = read_schema(notebook_path(stage))
    missing = [name for name in schema if name not in namespace]
    if missing:
        raise ConfigError(f"{stage}: parameter {', '.join(missing)} is not set. Run the parameters cell first.")
    parameters = {name: parameter.checked(namespace[name], f"{stage}.ipynb") for name, parameter in schema.items()}
    given = {name: value for name, value in parameters.items() if value != schema[name].default}
    return StageConfig(stage, str(parameters["profile"]), parameters, given)


def read_yaml(file: Path) -> dict[str, Any]:
    """Return what a parameter file holds, empty if nothing.

    Raises:
        ConfigError: it is missing, unreadable, larger than any list of parameters, malformed, has a key twice, refers
            from one value to another, or holds something else than keys and values.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(_LARGEST + 1)
    except FileNotFoundError:
        raise ConfigError(f"{relative(file)}: no such parameter file.") from None
    except OSError as error:
        raise ConfigError(f"{relative(file)}: cannot be read ({error.strerror}). Put a parameter file there.") from None
    if len(raw) > _LARGEST:
        raise ConfigError(f"{relative(file)}: more than {_LARGEST:,} bytes. Keep only the lines that give parameters.")
    try:
        content = yaml.load(raw.decode("utf-8"), Loader=_PlainLoader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{relative(file)}: not valid YAML ({error}). Save it as UTF-8 text.") from error
    except Exception as error:  # YAML's constructors raise a dozen kinds on malformed values; all mean the same here
        reason = " ".join(str(error).split()).encode("ascii", "backslashreplace").decode()[:300]
        raise ConfigError(f"{relative(file)}: not valid YAML ({reason}). Write `key: value` lines.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{relative(file)}: must hold `key: value` lines, holds a {type(content).__name__}.")
    return content


class _PlainLoader(yaml.SafeLoader):
    """YAML's safe loader for plain values that mean what they look like.

    It refuses a key that occurs twice, of which YAML takes the last; an alias, with which a few lines grow beyond any
    memory; values nested deeper than any parameter; and numbers that YAML 1.1 reads otherwise than they look, as
    ``010`` for 8 and ``1:30`` for 90.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, f"alias *{event.anchor}: write it out", event.start_mark)
        if self._depth > _DEEPEST:
            raise yaml.composer.ComposerError(None, None, "lists and keys too deep in others", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "expected keys and values", node.start_mark)
        seen: set[str] = set()
        for key in (self.construct_object(key, deep=True) for key, _ in node.value):
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {shown(key)} is no text", node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' occurs twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_plain_number(self, node: yaml.ScalarNode) -> int | float:
        """Construct a number in decimal notation."""
        if not _PLAIN_NUMBER.fullmatch(node.value):
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value} reads otherwise than it looks: write a plain number or quotes",
                node.start_mark,
            )  # fmt: skip
        kind = node.tag.rpartition(":")[2]
        return self.construct_yaml_int(node) if kind == "int" else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _PlainLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _PlainLoader.construct_plain_number)


def _checked(name: str, kind: str, value: Any, where: str) -> Any:
    """Return ``value`` as ``kind``, or raise with a remedy."""
    if kind.startswith("list["):
        if not isinstance(value, list):
            raise ConfigError(f"{where}: {name} must be a list, as in [{shown(value)}]; it is {shown(value)}.")
        return [_checked(f"{name}[{place}]", kind[5:-1], item, where) for place, item in enumerate(value)]
    wanted = _SCALARS[kind]
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{where}: {name} must be a finite number; it is too large for one.") from None
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "bool"):
        hint = ""
        if kind == "float" and isinstance(value, str):
            hint = " Write floats with a point and a sign, as 1.0e-3."
        elif kind == "str":
            hint = " Put it in quotes."
        raise ConfigError(f"{where}: {name} must be {kind}; {shown(value)} is {type(value).__name__}.{hint}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {name} must be a finite number; it is {value}.")
    return value
