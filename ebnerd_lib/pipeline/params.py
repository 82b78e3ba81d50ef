"""The effective parameters of a stage: the notebook's parameters cell, then the parameter files, checked together.

A line ``name: type = default  # help`` of the cell tagged ``parameters`` declares a parameter. Its legal values stand
in the notebook's class of ``ebnerd_lib.configs``.

A stage is a notebook with one parameter file. ``03_train_mlp.wide`` is the notebook ``03_train_mlp`` with the file
``03_train_mlp.wide.yaml`` on top of ``03_train_mlp.yaml``, where there is one. It trains the model ``mlp_wide``.
"""

import ast
import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ebnerd_lib.configs import CONFIGS, ONLINE, Parameters, flat, nested
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.pipeline.paths import notebook_path, parameter_file, profile_stages, relative

_PLAIN = {
    "null": r"null|~|",
    "bool": r"true|false",
    "int": r"[-+]?(0|[1-9][0-9_]*)",
    "float": r"[-+]?((0|[1-9][0-9_]*)(\.[0-9]*)?|\.[0-9]+)(e[-+]?[0-9]+)?",
}
"""Values of parameter files that are no text without quotes, by their type in YAML."""


@dataclass(frozen=True)
class StageConfig:
    """The effective parameters of a stage, and those among them that its parameter files give."""

    stage: str  # a notebook, and a variant of it after a dot
    profile: str  # the folder of ``params``
    parameters: dict[str, Any]  # all of them, checked
    given: dict[str, Any]  # those that a file gives
    # the stages whose artifacts it reads; of a stage that reads models, see ``read_stages``
    reads: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)  # what its own file changes, see ``differences``

    @property
    def trains(self) -> bool:
        """Whether this stage trains a model."""
        return trained_model(self.stage) is not None


def trained_model(stage: str) -> str | None:
    """Return the name of the model that a stage trains, ``None`` where it trains none.

    >>> [trained_model(stage) for stage in ("02_train_mf.ids", "03_train_mlp", "03_train_news.nrms", "05_compare")]
    ['mf_ids', 'mlp', 'nrms', None]
    """
    notebook, _, variant = stage.partition(".")
    kind = notebook.partition("_train_")[2]
    if not kind:
        return None
    return variant if kind == "news" and variant else f"{kind}_{variant}" if variant else kind


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    """Return the code cells of a notebook file, ``source`` joined to one string.

    Raises:
        ConfigError: the file is missing or no notebook.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return [{**cell, "source": "".join(cell["source"])} for cell in cells if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        fault = f"cannot be read as a notebook ({type(error).__name__})"
        raise ConfigError(f"{relative(notebook)}: {fault}. Restore it from git.") from error


def config_class(notebook: str) -> type[Parameters]:
    """Return the class with the legal values of a notebook's parameters; raises ``ConfigError`` where there is none."""
    if notebook not in CONFIGS:
        raise ConfigError(f"{notebook}: ebnerd_lib/configs.py has no notebook of this name; {hint(notebook, CONFIGS)}")
    return CONFIGS[notebook]


def read_defaults(notebook: Path) -> dict[str, Any]:
    """Return the parameters that a notebook declares, in order, with their defaults, which are not checked here.

    Raises:
        ConfigError: there is not exactly one cell tagged ``parameters``, a line of it is not of the form
            ``name: type = literal``, or it declares other parameters than the notebook's class.
    """
    tagged = [c for c in code_cells(notebook) if "parameters" in c.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise ConfigError(f"{relative(notebook)}: {len(tagged)} cells are tagged 'parameters'; there must be one.")
    try:
        statements = ast.parse(tagged[0]["source"]).body
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{relative(notebook)}: the parameters cell is not Python ({error}). Fix it.") from None
    defaults: dict[str, Any] = {}
    for node in statements:
        try:
            match node:
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    defaults[name] = ast.literal_eval(value)
                case _:
                    raise ValueError
        except (ValueError, TypeError):
            line = ast.unparse(node).splitlines()[0]
            form = "is not of the form `name: type = literal  # help`"
            raise ConfigError(f"{relative(notebook)}: '{line}' {form}.") from None
    if other := {*defaults} ^ {*config_class(notebook.stem).model_fields}:
        remedy = "Declare it in the parameters cell and in ebnerd_lib/configs.py"
        raise ConfigError(f"{relative(notebook)}: {', '.join(sorted(other))} stands in one place alone. {remedy}.")
    return defaults


def load_profile(profile: str) -> dict[str, StageConfig]:
    """Return the checked parameters of every stage of a profile, in order, with the stages that each reads.

    Raises:
        ConfigError: as ``load_config``; or a stage names a stage or a model that the profile lacks, or two stages train
            models of one name.
    """
    configs = {stage: load_config(profile, stage) for stage in profile_stages(profile)}
    check_models(profile, configs)
    known = {stage: config.parameters for stage, config in configs.items()}
    return {stage: replace(config, reads=read_stages(config, known)) for stage, config in configs.items()}


def check_models(profile: str, stages: Iterable[str]) -> None:
    """Raise ``ConfigError`` where two stages train models of one name, by which tables and files tell them."""
    trained: dict[str, str] = {}
    for stage in stages:
        model = trained_model(stage)
        if model and trained.setdefault(model, stage) != stage:
            file = relative(parameter_file(profile, stage))
            raise ConfigError(f"{file}: trains '{model}', as {trained[model]} does. Give the variant another name.")


def load_config(profile: str, stage: str) -> StageConfig:
    """Return the checked parameters of a stage in a profile; without the stages that it reads.

    Raises:
        ConfigError: the YAML is malformed, has a key that the notebook does not declare, or a value is not legal; the
            message names file, key, value and what is legal.
    """
    base, file = base_config(profile, stage), parameter_file(profile, stage)
    config = with_values(base, read_yaml(file), relative(file))
    return replace(config, changes=differences(base.parameters, config.parameters))


def base_config(profile: str, stage: str) -> StageConfig:
    """Return the parameters that the file of a stage starts from: those of the notebook's cell.

    A variant starts from the file of its notebook, where there is one, less what that says of online updates.
    """
    notebook, _, variant = stage.partition(".")
    defaults, file = read_defaults(notebook_path(stage)), parameter_file(profile, notebook)
    content = read_yaml(file) if variant and file.exists() else {}
    inherited = {key: value for key, value in content.items() if key not in ("update_minutes", "online")}
    return with_values(StageConfig(stage, profile, {**defaults, "profile": profile}, {}), inherited, relative(file))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values in ``after`` that differ from those before, those of groups one by one.

    >>> differences({"epochs": 3, "trainer": {"devices": 1}}, {"epochs": 3, "trainer": {"devices": 2}})
    {'trainer.devices': 2}
    """
    known = flat(before)
    return {name: value for name, value in flat(after).items() if name not in known or known[name] != value}


def read_stages(config: StageConfig, stages: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the stages whose artifacts a stage reads: those of its ``reads``, and those that trained its ``models``.

    Where ``models`` is empty, these are all that were trained on a stage that it reads.

    Args:
        config: of the stage.
        stages: the parameters of the stages there are, by name.

    Raises:
        ConfigError: it names a stage or a model that is not there, or itself.
    """
    explicit = list(config.parameters.get("reads", []))
    _check_names(config, "reads", [stage for stage in stages if stage != config.stage])
    if config.trains or "models" not in config.parameters:
        return tuple(explicit)
    trained: dict[str, str] = {}
    for stage, parameters in stages.items():
        if "importance" in config.parameters and parameters.get("slates") == "live":
            continue  # it scores no slates of the log, so there is nothing to compare
        if (name := trained_model(stage)) and set(parameters.get("reads", ())) & set(explicit):
            trained |= {name: stage} | ({name + ONLINE: stage} if parameters.get("update_minutes") else {})
    _check_names(config, "models", trained)
    _check_names(config, "importance", [name for name in trained if not name.endswith(ONLINE)])
    named = config.parameters["models"] or list(trained)
    return tuple(dict.fromkeys([*explicit, *sorted(trained[name] for name in named)]))


def _check_names(config: StageConfig, key: str, known: Collection[str]) -> None:
    """Refuse a name in a parameter's list that is not known."""
    for place, name in enumerate(config.parameters.get(key, [])):
        if name not in known:
            file = parameter_file(config.profile, config.stage)
            where = relative(file) if file.exists() else f"{config.stage}.ipynb"
            raise ConfigError(f"{where}: {key}[{place}]: '{name}' is unknown; {hint(name, known)}")


def read_assignments(text: str, where: str) -> dict[str, Any]:
    """Return the parameters that a text of the form ``key=value; key=value`` gives.

    A value is written as in a parameter file, a key of a group as in ``trainer.devices=2``; of two for one key the last
    one counts.

    Raises:
        ConfigError: a pair is of another form; the message names ``where`` the text stands.

    >>> read_assignments("hidden=[8]; trainer.devices=2", "SET")
    {'hidden': [8], 'trainer': {'devices': 2}}
    """
    values: dict[str, Any] = {}
    for pair in filter(str.strip, text.split(";")):
        key, given, value = pair.partition("=")
        try:
            values[key.strip()] = yaml.load(value, Loader=_Loader)
        except Exception:  # as in read_yaml
            given = ""
        if not given:
            raise ConfigError(f"{where}: {shown(pair.strip())} is not of the form key=value. Write epochs=3.")
    return nested(values)


def with_values(config: StageConfig, values: dict[str, Any], where: str) -> StageConfig:
    """Return the parameters of a stage with some set anew; ``where`` is the file they come from, for messages.

    Of a group only what is given changes.

    Raises:
        ConfigError: the notebook does not declare a name, or a value is not legal.
    """
    known = [name for name in config.parameters if name != "profile"]
    for key in values:
        if key == "profile":
            raise ConfigError(f"{where}: profile is given by the folder's name. Remove the key.")
        if key not in known:
            raise ConfigError(f"{where}: unknown key {shown(key)}; {hint(str(key), known)}")
        if isinstance(values[key], dict) and isinstance(config.parameters[key], dict):
            values = {**values, key: {**config.parameters[key], **values[key]}}
    parameters = _checked(config.stage, {**config.parameters, **values}, values, where)
    given = {**config.given, **{name: parameters[name] for name in values}}
    return replace(config, parameters=parameters, given=given)


def from_values(stage: str, values: Mapping[str, Any]) -> StageConfig:
    """Return the parameters as a notebook has them, checked as those of a file are.

    Raises:
        ConfigError: a parameter has no value, one that is not legal, or is not declared in the parameters cell.
    """
    defaults = read_defaults(notebook_path(stage))
    for name in {*defaults} ^ {*values}:
        fault = "gets no value" if name in defaults else "is not in the parameters cell"
        raise ConfigError(f"{stage}.ipynb: start(): the parameter {name} {fault}. Name the same parameters in both.")
    parameters = _checked(stage, dict(values), defaults, f"{stage}.ipynb")
    given = {name: value for name, value in parameters.items() if value != defaults[name]}
    return StageConfig(stage, parameters["profile"], parameters, given)


def _checked(stage: str, values: dict[str, Any], given: Collection[str], where: str) -> dict[str, Any]:
    """Return all parameters of a stage in their types; a message names ``where`` for those given, or the notebook."""
    notebook = notebook_path(stage)
    kind = config_class(notebook.stem)
    try:
        checked = kind.model_validate(values).model_dump()
    except ValidationError as error:
        problem = min(error.errors(include_url=False), key=lambda each: each["loc"][0] not in given)
        name = str(problem["loc"][0])
        place = where if name in given else relative(notebook)
        raise ConfigError(f"{place}: {_sentence(problem, kind.model_fields[name])}") from None
    return {name: checked[name] for name in values}


def _sentence(problem: ErrorDetails, field: FieldInfo) -> str:
    """Say which key has which value, what is legal, and what the key means."""
    name, *items = problem["loc"]
    if problem["type"] == "extra_forbidden":  # of a group
        known = getattr(field.annotation, "model_fields", {})
        return f"{name}: unknown key {shown(items[-1])}; {hint(str(items[-1]), known)}"
    if problem["type"] == "literal_error":
        fault = f"is not one of {problem['ctx']['expected'].replace(' or ', ', ')}"
    else:
        reason = problem["msg"].removeprefix("Value error, ")
        fault = f"is refused: {reason[0].lower()}{reason[1:]}"
    key = f"{name}{''.join(f'[{item}]' for item in items)}"
    return f"{key}: {shown(problem['input'])} {fault} ({field.description})."


def hint(name: str, known: Collection[str]) -> str:
    """Return what to write instead of an unknown name: the nearest known one, or all where none is near."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(known) or 'none'}."


def shown(value: object) -> str:
    r"""Return a value as messages show it: look-alike and control characters escaped, cut where it is long.

    >>> print(shown("\u0435pochs"))
    '\u0435pochs'
    """
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # Python writes no number of more than 4,300 digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]}..."


def read_yaml(file: Path) -> dict[str, Any]:
    """Return what a parameter file holds, empty if nothing.

    Raises:
        ConfigError: it is missing, unreadable, malformed, has a key twice, refers from one value to another, or holds
            something else than keys and values.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"{relative(file)}: cannot be read ({error.strerror}). Put a parameter file there.") from None
    except Exception as error:  # YAML's constructors raise a dozen kinds on malformed values; all mean the same here
        reason = " ".join(str(error).split()).encode("ascii", "backslashreplace").decode()[:300]
        raise ConfigError(f"{relative(file)}: not valid YAML ({reason}). Write `key: value` lines.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{relative(file)}: must hold `key: value` lines, holds a {type(content).__name__}.")
    return content


class _Loader(yaml.SafeLoader):
    """YAML's safe loader for plain values that mean what they look like: ``no``, ``010``, ``1:30`` and dates are text.

    It refuses a key that occurs twice, of which YAML takes the last, and an alias, with which a few lines grow beyond
    any memory.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, f"alias *{event.anchor}: write it out", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        content = super().construct_mapping(node, deep)
        if len(content) < len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"key {shown(twice)} occurs twice", node.start_mark)
        return content


_Loader.yaml_implicit_resolvers = {}
for _kind, _form in _PLAIN.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"({_form})$"), None)
