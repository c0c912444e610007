"""Imports run one way, from layer to layer, as the sources show: imports inside functions count
too, those for type checkers alone do not."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cpsae

ROOT = Path(cpsae.__file__).parent
LARGEST_FILE = 300
LARGEST_FUNCTION = 60

LAYERS = [
    {
        "errors",
        "config",
        "events",
        "device",
        "memory",
        "workers",
        "durable",
        "locks",
        "software",
        "tensors",
        "tensor_files",
        "json_files",
        "hub",
        "held_out",
        "file_content",
        "origins",
        "at_hand",
        "urls",
    },
    {"corpus", "models", "store", "sae"},
    {"extraction", "training", "evaluation", "reporting", "dashboard", "interop", "tracking"},
    {"stages"},
    {"cli", "api", "demo", "bench", "testing"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ALLOWED_WITHIN = {("cli", "demo"), ("cli", "bench"), ("api", "cli")}
"""`cpsae demo` and `cpsae bench` are commands: the command line calls them as it calls a stage.
Called from Python, a stage shows its progress as a command does."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for file in sorted(ROOT.rglob("*.py")):
        parts = ["cpsae", *file.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def imports_of(file: Path, deferred: bool = True) -> set[str]:
    """Dotted names that a file imports; without `deferred` only those run by importing it."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{file}: relative imports are not used"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = names & MODULES.keys()
            found |= submodules if submodules == names else {node.module, *submodules}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif deferred or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += ast.iter_child_nodes(node)
    return found


def own_imports(name: str, deferred: bool = True) -> set[str]:
    return {
        found for found in imports_of(MODULES[name], deferred) if found.split(".")[0] == "cpsae"
    }


def part_of(name: str) -> str:
    """The package or module right below cpsae; "" for cpsae itself."""
    return (name.split(".") + [""])[1]


def test_every_part_has_a_layer() -> None:
    parts = {part_of(name) for name in MODULES} - {"", "__main__"}
    assert parts <= LEVEL.keys(), f"say in LAYERS where {parts - LEVEL.keys()} belongs"


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_one_way(name) -> None:
    here = part_of(name)
    if here in ("", "__main__"):
        return
    for imported in own_imports(name):
        there = part_of(imported)
        if there in ("", here) or (here, there) in ALLOWED_WITHIN:
            continue
        assert LEVEL[there] < LEVEL[here] or LEVEL[here] == 0 == LEVEL[there], (
            f"{name} imports {imported}"
        )


def test_the_two_stages_never_import_each_other() -> None:
    for name in MODULES:
        others = {part_of(imported) for imported in own_imports(name)}
        assert not (part_of(name) == "extraction" and "training" in others), name
        assert not (part_of(name) == "training" and "extraction" in others), name


def test_there_are_no_cycles() -> None:
    """Not even through imports inside functions."""
    graph = {name: own_imports(name) & MODULES.keys() - {name} for name in MODULES}
    graph["cpsae"] = set()  # the lazy public names
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a cycle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in finished:
            for imported in sorted(graph[name]):
                visit(imported, (*path, name))
            finished.add(name)

    for name in graph:
        visit(name, ())


def test_click_and_rich_stay_in_the_command_line() -> None:
    for name, file in MODULES.items():
        if part_of(name) != "cli":
            roots = {imported.split(".")[0] for imported in imports_of(file)}
            assert not roots & {"click", "rich"}, name


def test_rich_stays_in_the_terminal() -> None:
    """Imports inside functions and for type checkers count too."""
    for name, file in MODULES.items():
        found = name not in ("cpsae.cli.terminal", "cpsae.cli.tables") and re.search(
            r"^\s*(from|import) rich\b", file.read_text(encoding="utf-8"), re.MULTILINE
        )
        assert not found, name


def test_no_package_looks_into_another_ones_folder() -> None:
    """The import rule, not evaded by a path: who lists modules lists those beside it."""
    for name, file in MODULES.items():
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"__file__\)\.parent\.parent", text), name


def loaded_by(statement: str) -> set[str]:
    """Top-level names of all modules that a fresh Python has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("cpsae", {"torch", "zarr", "pydantic", "click", "rich", "numpy"}),
        ("cpsae.errors", {"torch", "zarr", "pydantic", "numpy"}),
        ("cpsae.events", {"torch", "zarr", "pydantic", "numpy"}),
        ("cpsae.workers", {"torch", "zarr", "pydantic", "numpy"}),
        ("cpsae.cli.main", {"torch", "zarr", "pydantic", "numpy", "rich"}),
        ("cpsae.config", {"torch", "zarr", "transformers"}),
        ("cpsae.store", {"torch", "transformers"}),
        ("cpsae.corpus", {"torch", "transformers", "datasets"}),
    ],
)
def test_what_an_import_does_not_bring_along(module, absent) -> None:
    assert not loaded_by(f"import {module}") & absent


@pytest.mark.parametrize("name", MODULES)
def test_files_stay_readable(name) -> None:
    lines = MODULES[name].read_text(encoding="utf-8").count("\n")
    assert lines <= LARGEST_FILE, f"{name} has {lines} lines: cut it"


@pytest.mark.parametrize("name", MODULES)
def test_functions_stay_readable(name) -> None:
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= LARGEST_FUNCTION, f"{name}.{node.name} has {lines} lines: cut it"
