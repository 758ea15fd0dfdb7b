"""The rules of the house, read off the source: who imports whom, facts held once, habits no linter knows."""

import ast
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("inflate", "interp", "superres", "emoji_family")

# A unit may import units on lower rungs and itself. A unit is a child of inflate, or a package beside it.
LADDER = (
    {"inflate.errors", "inflate.version"},
    {
        "inflate.video",
        "inflate.stage_table",
        "inflate.places",
        "inflate.configs",
        "inflate.building",
        "inflate.cancelling",
        "inflate.ending",
        "inflate.staging",
        "inflate.workers",
    },
    {"inflate.layers", "inflate.diffusion"},
    {"inflate.schedulers", "inflate.schemes"},
    {"inflate.adapters"},
    {"inflate.inflater", "inflate.components"},
    {"inflate.checkpoint", "inflate.data", "inflate.stages"},
    {"inflate.bases"},
    {"inflate.sampling"},
    {"inflate.models", "inflate.evaluate"},
    {"interp", "superres"},
    {"inflate.cascade", "inflate.train"},
    {"inflate.page", "interp.training", "superres.training", "emoji_family"},
    {"emoji_family.training"},
    {"inflate.cli"},
    {"inflate.__main__"},
)
RUNG = {unit: number for number, units in enumerate(LADDER) for unit in units}

# Who alone may know a library. `inflate.stages` and the packages beside inflate hold stages.
_STAGES = {"inflate.stages", "interp", "superres", "interp.training", "superres.training"}
_FAMILY = {"emoji_family", "emoji_family.training"}
KEEPERS = {
    "diffusers": {"inflate.inflater", "inflate.checkpoint", "inflate.models", "inflate.cascade", "inflate.train"}
    | {"inflate.adapters", "inflate.schedulers", "inflate.bases", "inflate.components"}
    | _STAGES
    | _FAMILY,
    "huggingface_hub": {"inflate.checkpoint"},
    "av": {"inflate.data"},
    "scenedetect": {"inflate.data"},
    "datasets": {"inflate.data"},
    "accelerate": {"inflate.train"},
    "typer": {"inflate.cli"},
    "gradio": {"inflate.page", "inflate.cli"},  # the command's one import says that the extra is missing
}
# What the lowest rungs may know beside the standard library and each other.
FRUGAL = {
    "inflate.errors": set(),
    "inflate.version": set(),
    "inflate.stage_table": set(),
    "inflate.places": set(),
    "inflate.configs": set(),
    "inflate.staging": {"filelock"},
    "inflate.workers": set(),
    "inflate.ending": set(),
    "inflate.video": {"torch", "einops", "numpy"},
    "inflate.building": set(),
    "inflate.cancelling": {"torch"},
    "inflate.layers": {"torch", "einops"},
    "inflate.diffusion": {"torch"},
    "inflate.schemes": set(),
}


@dataclass(frozen=True)
class Import:
    """One imported name: the module that imports it, where, and its dotted name."""

    importer: str
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}, imports {self.name}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, ast.Module]:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {module_name(file): ast.parse(file.read_text(encoding="utf-8"), str(file)) for file in files}


def imports_of(importer: str, tree: ast.Module) -> list[Import]:
    """Every import statement, also those inside functions; ``from a import b`` counts as ``a.b``."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [Import(importer, node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer}, line {node.lineno}: imports are absolute here"
            found += [Import(importer, node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def all_imports() -> list[Import]:
    return [found for importer, tree in modules().items() for found in imports_of(importer, tree)]


def unit_of(name: str) -> str:
    """The unit that a dotted name of ours belongs to; the bare package ``inflate`` is its own front door."""
    parts = name.split(".")
    # The packages beside inflate bring train steps, which know the loop's side of the house; the rest of them does not.
    return ".".join(parts[:2]) if parts[0] == "inflate" or parts[1:2] == ["training"] else parts[0]


def climbs(found: Import) -> bool:
    """Whether an import of ours goes up the ladder, or sideways to another unit."""
    importer, imported = unit_of(found.importer), unit_of(found.name)
    if importer == imported or found.name == "inflate.__version__":
        return False
    beside = imported.split(".")[0] in ("interp", "superres", "emoji_family")
    if importer == "inflate":  # the front door hands out names of every rung
        return beside
    if imported not in RUNG:  # `import inflate`, `from inflate import save`: the front door, for the top rung only
        return importer != "inflate.cli"
    if beside and importer.startswith("inflate."):
        return True
    return RUNG[imported] >= RUNG[importer]


def facts() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def python_floor() -> str:
    match = re.fullmatch(r">=(\d+\.\d+)", facts()["project"]["requires-python"])
    assert match, "requires-python is '>=X.Y'"
    return match[1]


def constraint(name: str) -> str:
    match = re.search(rf"^{re.escape(name)}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert match, f"constraints.txt pins no {name}"
    return match[1]


def test_every_module_has_a_place_on_the_ladder() -> None:
    units = {unit_of(name) for name in modules()} - {"inflate"}
    assert units <= set(RUNG), f"no rung for {sorted(units - set(RUNG))}"
    assert len(modules()) > 20, "the source was not found"


def test_imports_go_down_the_ladder() -> None:
    ours = [found for found in all_imports() if found.name.split(".")[0] in PACKAGES]
    assert ours, "no import was found"
    assert not [str(found) for found in ours if climbs(found)]


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Counting imports inside functions, and those that only types need."""
    known = set(modules())
    graph: dict[str, set[str]] = {name: set() for name in known}
    for found in all_imports():
        module = found.name if found.name in known else found.name.rpartition(".")[0]
        if module in known and module != found.importer:
            graph[found.importer].add(module)
    assert sum(map(len, graph.values())) > len(known)
    TopologicalSorter(graph).prepare()  # a CycleError names the circle


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_documents_name_files_that_there_are(document: str) -> None:
    named = re.findall(
        r"`((?:inflate|interp|superres|emoji_family|tests|docs|recipes)/[\w./-]*)`", (ROOT / document).read_text()
    )
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize(
    ("importer", "name", "forbidden"),
    [
        ("inflate.layers.attention", "inflate.inflater.inflate", True),
        ("inflate.checkpoint.save", "inflate.data.decode", True),
        ("inflate.stages", "interp.Interpolator", True),
        ("inflate.inflater.model", "inflate.save", True),
        ("interp.sampling", "inflate.cascade.Cascade", True),
        ("inflate.inflater.model", "inflate.layers.TemporalConv", False),
        ("inflate.data.decode", "inflate.data.sampling", False),
        ("inflate.cli.convert", "inflate.save", False),
        ("interp.sampling", "inflate.stages.Stage", False),
    ],
)
def test_the_ladder_test_itself(importer: str, name: str, forbidden: bool) -> None:
    assert climbs(Import(importer, 1, name)) is forbidden


@pytest.mark.parametrize("library", KEEPERS)
def test_libraries_are_known_only_to_their_keepers(library: str) -> None:
    users = [found for found in all_imports() if found.name.split(".")[0] == library]
    assert not [str(found) for found in users if unit_of(found.importer) not in KEEPERS[library]]


@pytest.mark.parametrize("unit", FRUGAL)
def test_the_lowest_rungs_need_little(unit: str) -> None:
    used = {found.name.split(".")[0] for found in all_imports() if unit_of(found.importer) == unit}
    assert used - sys.stdlib_module_names - {"inflate"} <= FRUGAL[unit]


def test_every_import_is_a_declared_dependency() -> None:
    project = facts()["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *extras["train"], *extras["app"]]
    declared = {_normal(re.split(r"[\[<>=!~; ]", line)[0]) for line in requirements}
    distributions = packages_distributions()
    used = {found.name.split(".")[0] for found in all_imports()} - sys.stdlib_module_names - set(PACKAGES)
    undeclared = {name for name in used if not {_normal(owner) for owner in distributions.get(name, [name])} & declared}
    assert not undeclared, "declare these in pyproject.toml"


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from inflate.cli.app import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'gradio', 'av', 'accelerate'} & set(sys.modules)\n"
        "assert not heavy, f'--help imported {sorted(heavy)}'\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout


def test_importing_inflate_loads_no_torch() -> None:
    code = (
        "import sys, inflate; assert 'torch' not in sys.modules; inflate.__version__; assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_the_version_is_held_once() -> None:
    import inflate

    version = facts()["project"]["version"]
    assert inflate.__version__ == version
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest and newest[1] == version


def test_the_python_floor_is_held_once() -> None:
    floor, tool = python_floor(), facts()["tool"]
    assert tool["ruff"]["target-version"] == "py" + floor.replace(".", "")
    assert tool["pyright"]["pythonVersion"] == floor
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(facts()["project"]["classifiers"]), re.MULTILINE)
    assert min(named, key=lambda text: int(text.split(".")[1])) == floor
    assert f"sys.version_info < ({floor.replace('.', ', ')})" in (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in ("README.md", "Makefile", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        assert set(re.findall(r"Python (\d\.\d+)", text)) == {floor}, document


def test_the_licence_is_held_once() -> None:
    assert facts()["project"]["license"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence and "Version 2.0, January 2004" in licence and len(licence) > 11_000
    assert "Apache License, Version 2.0" in (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert "Apache-2.0" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_tool_versions_are_pinned_once() -> None:
    dev = facts()["project"]["optional-dependencies"]["dev"]
    for tool in ("ruff", "pyright"):
        [pinned] = [re.split("==", line)[1] for line in dev if re.match(rf"{tool}\b", line)]
        assert pinned == constraint(tool)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert "rev:" not in hooks, "hooks run the pinned tools of the environment"


def test_constraints_pin_every_direct_dependency() -> None:
    project = facts()["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    pinned = {
        _normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    wanted = {_normal(re.split(r"[\[<>=!~; ]", line)[0]) for group in groups for line in group}
    assert not wanted - pinned


def test_the_wheel_carries_the_packages_and_their_data() -> None:
    from hatchling.builders.wheel import WheelBuilder

    carried = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    tracked = subprocess.run(["git", "ls-files", "-z", *PACKAGES], cwd=ROOT, capture_output=True, text=True)
    ours = [name for name in tracked.stdout.split("\0") if name and (ROOT / name).exists()]
    if not ours:  # an unpacked source archive has no git
        ours = [path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert set(ours) <= carried
    assert not [name for name in carried if name.split("/")[0] not in PACKAGES]


def test_files_are_renamed_into_place_in_one_module() -> None:
    # Whoever writes a file or a folder has it made whole by inflate.staging, which cleans up after what was killed.
    renaming = {"os.replace", "os.rename", "os.link"}
    found = {
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in renaming
    }
    assert found <= {"inflate.staging", "inflate.checkpoint.writing"}, (
        "the latter links weights instead of copying them"
    )


def test_a_network_is_evaluated_with_and_without_its_condition_in_one_module() -> None:
    def doubles(node: ast.AST) -> bool:
        if (
            not isinstance(node, ast.Call)
            or ast.unparse(node.func) != "torch.cat"
            or not isinstance(node.args[0], ast.List)
        ):
            return False
        parts = [ast.unparse(part) for part in node.args[0].elts]
        return len(parts) == 2 and parts[0] == parts[1]

    found = {name for name, tree in modules().items() for node in ast.walk(tree) if doubles(node)}
    assert found == {"inflate.sampling.denoiser"}


def test_no_drawer_for_everything() -> None:
    assert not [name for name in modules() if name.split(".")[-1] in ("utils", "util", "common", "misc", "helpers")]


def test_no_future_annotations() -> None:
    assert not [str(found) for found in all_imports() if found.name == "__future__.annotations"]


def test_weights_are_never_unpickled() -> None:
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            where = f"{name}, line {node.lineno}"
            if ast.unparse(node.func) == "torch.load":
                assert keywords.get("weights_only") == "True", f"{where}: torch.load needs weights_only=True"
            if isinstance(node.func, ast.Attribute) and node.func.attr == "load_state_dict":
                assert keywords.get("strict") != "False", f"{where}: report missing and unknown keys instead"
    assert not [str(found) for found in all_imports() if found.name.split(".")[0] in ("pickle", "dill", "cloudpickle")]


def test_nothing_is_left_for_later() -> None:
    for name in modules():
        file = ROOT / (name.replace(".", "/") + ".py")
        text = (file if file.exists() else ROOT / name.replace(".", "/") / "__init__.py").read_text(encoding="utf-8")
        assert not re.search(r"\b(TODO|FIXME|XXX|raise NotImplementedError)\b", text), name
