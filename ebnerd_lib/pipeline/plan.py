"""The order in which the stages of a profile run, and whether their parameters fit together.

All that can be told from parameter files, notebooks and the text of modules is told before a kernel starts. Standard
library and YAML only.
"""

import ast
import difflib
from collections.abc import Iterable
from pathlib import Path

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.pipeline import layout
from ebnerd_lib.pipeline.config import StageConfig, code_cells
from ebnerd_lib.pipeline.domain import shown
from ebnerd_lib.pipeline.layout import notebook_path, parameter_file, relative

LEARNING = "_learning"
"""What the name of a model ends in that learns on."""


def plan(configs: dict[str, StageConfig]) -> list[list[str]]:
    """Return the stages of a profile in groups, each group after those that it reads.

    Args:
        configs: of every stage of the profile, by stage.

    Raises:
        ConfigError: a stage reads one that the profile lacks, itself or in a circle, or does not read one that its
            notebook opens; or a parameter names a model that its module does not hold or no stage read trains.
    """
    for config in configs.values():
        _check_reads(config, list(configs))
        _check_module(config)
    groups = _levels(configs)
    for config in configs.values():
        _check_trained(config, configs)
    return groups


def _check_reads(config: StageConfig, stages: list[str]) -> None:
    for place, stage in enumerate(config.reads):
        if stage == config.stage or stage not in stages:
            _refuse(
                config, f"reads[{place}]", stage, (s for s in stages if s != config.stage), "a stage of the profile"
            )
    lacking = [stage for stage in _opened(notebook_path(config.stage)) if stage not in config.reads]
    if lacking and "reads" in config.parameters:
        raise ConfigError(f"{_file(config)}: reads must hold '{lacking[0]}', which the notebook opens; add it.")


def _levels(configs: dict[str, StageConfig]) -> list[list[str]]:
    done: list[str] = []
    groups: list[list[str]] = []
    while len(done) < len(configs):
        level = [s for s, config in configs.items() if s not in done and set(done).issuperset(config.reads)]
        if not level:
            circle = [stage for stage in configs if stage not in done]
            missing = ", ".join(s for s in configs[circle[0]].reads if s not in done)
            raise ConfigError(
                f"{_file(configs[circle[0]])}: reads must hold stages that can run before it; it holds {missing}, and "
                f"{', '.join(circle)} wait for each other. Name other stages."
            )
        groups.append(level)
        done += level
    return groups


def _check_module(config: StageConfig) -> None:
    """Refuse a module that is none of models, and models that it does not hold."""
    if not {"module", "models"} <= set(config.parameters):
        return
    module, folder = config.parameters["module"], layout.ROOT / "ebnerd_lib" / "models"
    held = {path.stem: models for path in sorted(folder.glob("*.py")) if (models := _classes(path))}
    if module not in held:
        _refuse(config, "module", module, held, "a module of ebnerd_lib/models with models")
    for place, model in enumerate(config.parameters["models"]):
        if model not in held[module]:
            _refuse(config, f"models[{place}]", model, held[module], f"a model of ebnerd_lib/models/{module}.py")


def _check_trained(config: StageConfig, configs: dict[str, StageConfig]) -> None:
    """Refuse names of models that no stage trains which this one reads."""
    if "module" in config.parameters:
        return
    trained = [name for stage in config.reads for name in _trained(configs[stage])]
    named = {key: config.parameters.get(key, []) for key in ("models", "importance")}
    for key, names in named.items():
        able = [name for name in trained if key == "models" or not name.endswith(LEARNING)]
        for place, name in enumerate(names):
            if name not in able:
                _refuse(config, f"{key}[{place}]", name, able, "a model that a stage read trains")
    scorers = [*trained, *_baselines(layout.ROOT / "ebnerd_lib" / "evaluation" / "baselines.py")]
    reference = config.parameters.get("reference", "")
    if reference and reference not in scorers:
        _refuse(config, "reference", reference, scorers, "a model that a stage read trains, or a baseline")


def _trained(config: StageConfig) -> list[str]:
    """Return the names of the models that a training stage leaves, none for another stage."""
    if "module" not in config.parameters:
        return []
    uses = _classes(layout.ROOT / "ebnerd_lib" / "models" / f"{config.parameters['module']}.py")
    names = []
    for model in config.parameters["models"]:
        variants = config.parameters["tiers"][1:] if uses.get(model) else []
        names += [model, *(f"{model}_{tier}" for tier in variants)]
        names += [f"{model}{LEARNING}"] if config.parameters.get("update_minutes") else []
    return names


def _classes(path: Path) -> dict[str, bool]:
    """Return the names of the models of a module, and whether each uses features, from its text."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            constants = {
                target.id: line.value.value
                for line in node.body
                if isinstance(line, ast.Assign | ast.AnnAssign) and isinstance(line.value, ast.Constant)
                for target in (line.targets if isinstance(line, ast.Assign) else [line.target])
                if isinstance(target, ast.Name)
            }
            if "name" in constants:
                found[str(constants["name"])] = bool(constants.get("uses_features", True))
    return found


def _baselines(path: Path) -> list[str]:
    """Return the names in the table ``BASELINES`` of a module, from its text."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "BASELINES":
            return [str(key.value) for key in getattr(node.value, "keys", []) if isinstance(key, ast.Constant)]
    return []


def _opened(notebook: Path) -> list[str]:
    """Return the stages whose artifacts a notebook opens by name, less those that it opens on a condition."""
    found: list[str] = []
    for cell in code_cells(notebook):
        try:
            tree = ast.parse(cell["source"])
        except SyntaxError:
            continue  # magics; the fingerprint refuses what is no Python
        on_condition = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.IfExp) for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) == "stage.artifacts"
                and id(node) not in on_condition
            ):
                found += [str(word.value) for word in node.args if isinstance(word, ast.Constant)]
    return found


def _refuse(config: StageConfig, key: str, value: str, valid: Iterable[str], what: str) -> None:
    known = list(valid)
    near = difflib.get_close_matches(value, known, 1)
    hint = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(known) or 'none'}."
    raise ConfigError(f"{_file(config)}: {key} must be {what}; it is {shown(value)}; {hint}")


def _file(config: StageConfig) -> str:
    return relative(parameter_file(config.profile, config.stage))
