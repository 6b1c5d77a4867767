"""The layers: what imports what, what loads, and what the modules say of themselves."""

import ast
import functools
import graphlib
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("flowrl_core", "tasks", "flows", "flowrl_cli")
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for layer in LAYERS
    for path in (ROOT / layer).rglob("*.py")
    if "migrations" not in path.parts
)
CORE = [module for module in MODULES if module.startswith("flowrl_core.")]
# From the top: a package imports from those below its line, and from no other. All that is not named here is a small
# bottom: a module that imports other bottoms alone.
ORDER = (
    ("testing", "library"),
    ("stages",),
    ("llm", "compiled", "report"),
    ("storage",),
    ("proposals", "learning"),
    ("envs",),
    ("skills", "networks"),
    ("specs", "programs"),
    ("vocabulary",),
)
RANKS = {package: rank for rank, packages in enumerate(reversed(ORDER), start=1) for package in packages}
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
FLOWS = sorted({deployment["entrypoint"] for deployment in DEPLOYMENTS})


@functools.cache
def source_of(module):
    return Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")


@functools.cache
def nodes_of(module):
    """Everything in a module's syntax tree."""
    return tuple(ast.walk(ast.parse(source_of(module))))


def strings_of(nodes):
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def imports_of(module):
    """The names of all that a module imports, wherever in it."""
    for node in nodes_of(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def modules_of(module):
    """The modules of ours that a module imports, wherever in it, for its types alone, too."""
    for node in nodes_of(module):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import name` imports the package's own code only where it takes a name of that.
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [one if one in MODULES else node.module for one in inner]
        else:
            continue
        yield from (name for name in names if name in MODULES and name != module)


def loaded_by(*modules):
    """The top-level names of all modules that a fresh interpreter has after importing these."""
    code = f"import sys, json, {', '.join(modules)}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_imports_point_downwards():
    def above(module):
        return LAYERS[LAYERS.index(module.split(".")[0]) + 1 :]

    wrong = [(one, name) for one in MODULES for name in imports_of(one) if name.split(".")[0] in above(one)]
    assert not wrong, f"modules that import from a layer above: {wrong}"


def test_inside_the_core_imports_point_downwards():
    def may_import(module, name):
        package, other = module.split(".")[1], name.split(".")[1] if "." in name else ""
        rank, other_rank = RANKS.get(package, 0), RANKS.get(other, 0)
        return other == package or other_rank < rank or other_rank == rank == 0

    wrong = [(one, name) for one in CORE for name in modules_of(one) if not may_import(one, name)]
    assert not wrong, f"modules that import what does not lie below them: {wrong}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: set(modules_of(module)) for module in MODULES}
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as exc:
        pytest.fail(f"a circle of imports: {' <- '.join(exc.args[1])}")


def test_the_core_never_imports_prefect():
    core = [module for module in MODULES if module.startswith("flowrl_core")]
    assert [one for one in core if "prefect" in {name.split(".")[0] for name in imports_of(one)}] == []


def test_skills_programs_and_the_registry_load_neither_jax_nor_prefect():
    packages = ("flowrl_core.skills", "flowrl_core.programs")
    modules = [module for module in MODULES if module.startswith(packages)]
    storage = ("flowrl_core.storage.registry", "flowrl_core.storage.layout", "flowrl_core.storage.atomic")
    loaded = loaded_by(*modules, *storage, "flowrl_core.vocabulary.catalogue")
    assert not loaded & {"jax", "flax", "orbax", "craftax", "prefect"}


def test_flows_load_no_jax_since_a_run_takes_its_device_before():
    assert not loaded_by("flows.skill", "flows.campaign", "tasks.orchestration.server.workers") & {
        "jax",
        "flax",
        "craftax",
    }


# What earlier versions called something that stands in users' servers.
EARLIER = ("tasks.orchestration.installation.enter", "tasks.orchestration.engine")
OURS = re.compile(r"(flowrl_core|flowrl_cli|tasks\.(orchestration|campaign|skill|upkeep))(\.[a-z]\w*)+")


def test_a_module_that_is_named_in_a_string_exists():
    named = [(one, text.partition(":")[0]) for one in MODULES for text in strings_of(nodes_of(one))]
    ours = [(one, name) for one, name in named if OURS.fullmatch(name) and name not in EARLIER]
    assert ours
    assert [(one, name) for one, name in ours if not {name, name.rpartition(".")[0]} & set(MODULES)] == []


IMPORTED = re.compile(r"from ((?:flowrl_core|flowrl_cli|tasks|flows)[\w.]*) import (\w+(?:, \w+)*)")


def test_code_that_a_test_starts_from_a_string_imports_what_is_there():
    """Elsewhere lint finds it; here the test would fail far away, or skip what it is about."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("*.py")]
    text = "\n".join(one for tree in trees for one in strings_of(ast.walk(tree)))
    imported = {(module, name) for module, names in IMPORTED.findall(text) for name in names.split(", ")}
    assert imported
    for module, name in sorted(imported):
        is_there = f"{module}.{name}" in MODULES or hasattr(importlib.import_module(module), name)
        assert is_there, f"{module} has no {name}"


def test_benchmarks_use_what_is_there():
    """No test runs them, and types are not checked there."""
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        nodes, modules = list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))), {}
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in LAYERS:
                loaded = importlib.import_module(node.module)
                for name in [alias.name for alias in node.names]:
                    if f"{node.module}.{name}" in MODULES:
                        modules[name] = importlib.import_module(f"{node.module}.{name}")
                    assert name in modules or hasattr(loaded, name), f"{path.name}: {node.module} has no {name}"
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                assert hasattr(modules[node.value.id], node.attr), f"{path.name}: {ast.unparse(node)} is not there"


def test_one_place_says_which_name_a_person_may_have_meant():
    """Elsewhere `MAKE_B` or `make-b` would be suggested nothing, or something else, or in other words."""
    for words in ("difflib", "Did you mean"):
        assert [module for module in MODULES if words in source_of(module)] == ["flowrl_core.nearest"]


def test_modules_are_run_by_the_command_of_the_installation():
    """`python -m` would run what is called so in the working directory or on PYTHONPATH, and import such packages."""
    assert [one for one in MODULES if "-m" in strings_of(nodes_of(one))] == []


def test_text_is_utf8_wherever_it_is_read_or_written():
    """And not in what the environment says of it."""

    def names_its_encoding(call):
        words = {word.arg for word in call.keywords}
        name = ast.unparse(call.func)
        # (A file of a distribution has a name here, and is of UTF-8.)
        is_text = (name.endswith(".read_text") and not call.args) or name.endswith(".write_text") or "text" in words
        if name == "open" or name.endswith(".fdopen"):
            is_text = not any(isinstance(one, ast.Constant) and "b" in str(one.value) for one in call.args[1:])
        return not is_text or "encoding" in words

    calls = [(one, node) for one in MODULES for node in nodes_of(one) if isinstance(node, ast.Call)]
    assert [f"{one}: {ast.unparse(call)}" for one, call in calls if not names_its_encoding(call)] == []


def test_the_command_loads_nothing_heavy_for_its_help():
    assert not loaded_by("flowrl_cli.app") & {"jax", "prefect", "sqlalchemy"}


def test_every_name_in_all_exists_and_every_module_says_what_it_is():
    # Importing `__main__` would run the command.
    for module in [one for one in MODULES if one != "flowrl_cli.__main__"]:
        loaded = importlib.import_module(module)
        assert loaded.__doc__, f"{module} has no docstring"
        missing = [name for name in getattr(loaded, "__all__", []) if not hasattr(loaded, name)]
        assert not missing, f"{module}.__all__ names what is not there: {missing}"


def test_orchestration_knows_no_family():
    """It submits, watches and ends runs of whatever family, and gives them devices."""
    families = ("tasks.skill", "tasks.campaign", "flowrl_core.stages", "flowrl_core.skills", "flowrl_core.specs")
    for module in [one for one in MODULES if one.startswith("tasks.orchestration")]:
        assert [name for name in imports_of(module) if name.startswith(families)] == []
        assert "skill" not in source_of(module).lower(), module


def test_the_flow_of_skills_is_named_in_one_place_besides_its_definition():
    named = [
        str(path.relative_to(ROOT))
        for top in (*LAYERS, "prefect.yaml")
        for path in ([ROOT / top] if top.endswith(".yaml") else sorted((ROOT / top).rglob("*.py")))
        if "train-skill" in path.read_text(encoding="utf-8")
    ]
    assert named == ["tasks/skill/submission.py", "flows/skill.py"]


def test_prefect_itself_accepts_prefect_yaml():
    from prefect.cli.deploy._models import PrefectYamlModel

    PrefectYamlModel.model_validate(yaml.safe_load((ROOT / "prefect.yaml").read_text()))


def test_entrypoints_load_and_the_deployments_that_are_submitted_to_are_there(monkeypatch):
    from prefect.flows import load_flow_from_entrypoint

    from tasks.campaign.campaign_runs import CAMPAIGN
    from tasks.orchestration.server.bootstrap import POOLS
    from tasks.skill.submission import SKILL

    monkeypatch.chdir(ROOT)
    flows = {at: load_flow_from_entrypoint(at, use_placeholder_flow=False) for at in FLOWS}
    names = {f"{flows[one['entrypoint']].name}/{one['name']}" for one in DEPLOYMENTS}
    assert names == {CAMPAIGN, SKILL, "campaign/nightly", "evaluate-skill/gpu", "housekeeping/default"}
    assert {one["work_pool"]["name"] for one in DEPLOYMENTS} == set(POOLS)


def test_flow_files_define_flows_only():
    """Prefect loads them as modules of their own, whose classes would differ from the imported ones."""
    for path in (ROOT / "flows").glob("*.py"):
        tree = ast.parse(path.read_text())
        assert not [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)], path
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        assert [f"flows/{path.name}:{name}" for name in names] in ([], *([at] for at in FLOWS))


@pytest.mark.parametrize("entrypoint", FLOWS)
def test_forms_say_what_each_field_is_and_have_no_unions_nor_nulls(entrypoint, monkeypatch):
    """Prefect's forms show unions and nulls badly."""
    from prefect.flows import load_flow_from_entrypoint

    monkeypatch.chdir(ROOT)
    schema = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False).parameters.model_dump(mode="json")
    text = json.dumps(schema)
    assert '"anyOf"' not in text and '"null"' not in text
    fields = dict(schema["properties"])
    for group, definition in schema["definitions"].items():
        fields |= {f"{group}.{name}": field for name, field in definition.get("properties", {}).items()}
    assert fields and [name for name, field in fields.items() if not field.get("description")] == []
