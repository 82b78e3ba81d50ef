"""The notebooks of a profile as plain Python scripts, to read, to debug or to run without Jupyter."""

from pathlib import Path

from ebnerd_lib.pipeline import layout
from ebnerd_lib.pipeline.config import load_config
from ebnerd_lib.pipeline.json_file import write_whole
from ebnerd_lib.pipeline.layout import notebook_path, profile_stages, relative
from ebnerd_lib.pipeline.runner import DETERMINISM

_NOTE = """Made by `make scripts PROFILE={profile}` from {notebook}, with the parameters of this profile.
Run it after those of the stages before it: .venv/bin/python {script}"""
_HEAD = """import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ |= {determinism}  # for the bytes of `make run-all`"""


def export(profile: str) -> list[Path]:
    """Write each notebook of a profile as a script to ``outputs/scripts``, in place of what was written there before.

    A script does what its notebook does by hand: it writes the same artifacts, and `make run-all` makes them again.

    Returns:
        The files.

    Raises:
        ConfigError: the profile, a parameter file or a notebook's parameters are wrong.
    """
    folder = layout.ROOT / "outputs" / "scripts"
    sources = {folder / f"{stage}.py": _source(profile, stage, folder) for stage in profile_stages(profile)}
    for file, source in sources.items():
        write_whole(file, source)
    for other in set(folder.glob("*.py")) - set(sources):
        other.unlink()
    return list(sources)


def _source(profile: str, stage: str, folder: Path) -> str:
    """Return a notebook as Python, its prose as comments, with a profile's parameters after its own."""
    import nbformat
    from nbconvert import PythonExporter
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    given = {**load_config(profile, stage).given, "profile": profile}
    notebook = load_notebook_node(str(notebook_path(stage)))
    notebook = parameterize_notebook(notebook, given, kernel_name="python3", language="python")
    names = {"notebook": relative(notebook_path(stage)), "script": relative(folder / f"{stage}.py")}
    # Python reads its hash seed before any script.
    determinism = {name: value for name, value in DETERMINISM.items() if name != "PYTHONHASHSEED"}
    notebook.cells[:0] = [
        nbformat.v4.new_markdown_cell(_NOTE.format(profile=profile, **names)),
        nbformat.v4.new_code_cell(_HEAD.format(determinism=determinism)),
    ]
    source, _ = PythonExporter(exclude_input_prompt=True).from_notebook_node(notebook)
    return str(source)
