"""The design as tests: who may import whom, what is pinned, what the documents must say."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("privacy_core", "feedback")
SHELL = ("app.py", "shell")
TEXT = {"", ".cfg", ".csv", ".json", ".md", ".py", ".svg", ".toml", ".txt", ".yaml", ".yml"}


def sources(*places):
    """Return the Python files of top-level folders or files that exist, sorted."""
    paths = [ROOT / place for place in places]
    found = [p for path in paths for p in ([path] if path.is_file() else path.rglob("*.py"))]
    return sorted(path for path in found if path.suffix == ".py")


def imported_names(path):
    """Return the dotted names a file imports, wherever in the file it does so."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def requirements(file_name):
    """Return {distribution: specifier} of a requirements file, without comments and `-r` lines."""
    lines = [line.split("#")[0].strip() for line in (ROOT / file_name).read_text().splitlines()]
    matches = [re.fullmatch(r"([\w.-]+)(.*)", line) for line in lines if line and line[0] != "-"]
    return {match[1]: match[2] for match in matches}


def space_header():
    """Return the YAML block a Hugging Face Space reads at the head of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    head = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert head, "README.md must open with the Space header"
    return yaml.safe_load(head[1])


# --- Who imports whom ------------------------------------------------------------------------

PROBE = """
import importlib, json, logging, sys, threading, warnings
warnings.simplefilter("ignore")
events = []
def watch(event, args):
    if event in {"socket.connect", "subprocess.Popen"}:
        events.append(event)
    elif event == "open" and str(args[0]).endswith((".safetensors", ".dat", ".npz", ".sqlite3")):
        events.append("open " + str(args[0]))
sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps({
    "modules": sorted(sys.modules),
    "events": events,
    "threads": threading.active_count(),
    "handlers": len(logging.getLogger().handlers),
}))
"""


@pytest.fixture(scope="module")
def imported():
    """Return a function that imports modules in a fresh process and says what came with them."""
    known = {}

    def import_in_fresh_process(*names):
        if names not in known:
            done = subprocess.run(
                [sys.executable, "-c", PROBE, *names],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            known[names] = json.loads(done.stdout)
        return known[names]

    return import_in_fresh_process


def test_feedback_with_all_its_modules_leaves_models_pages_and_privacy_core_out(imported):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sources("feedback")
        if path.name != "__init__.py"
    ]
    assert "feedback.schema" in modules
    loaded = {name.split(".")[0] for name in imported("feedback", *modules)["modules"]}
    banned = {"torch", "diffusers", "transformers", "gradio", "privacy_core"}
    assert not loaded & banned


def test_privacy_core_leaves_pages_ratings_and_diffusers_out(imported):
    loaded = {name.split(".")[0] for name in imported("privacy_core")["modules"]}
    assert "privacy_core" in loaded
    assert not loaded & {"gradio", "feedback", "diffusers"}


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_reads_no_weights_and_starts_nothing(imported, package):
    seen = imported(package)
    assert seen["events"] == []
    assert seen["threads"] == 1
    assert seen["handlers"] == 0


def test_only_the_app_imports_gradio():
    importers = [
        name_of(path)
        for path in sources(*SHELL, "privacy_core", "feedback", "benchmarks")
        if any(name.split(".")[0] == "gradio" for name in imported_names(path))
    ]
    assert importers == ["app.py"]


def test_the_environment_is_read_in_main_only():
    readers = []
    for path in sources(*SHELL, *PACKAGES):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside_main = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef) and function.name == "main"
            for node in ast.walk(function)
        }
        readers += [
            f"{name_of(path)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and node.attr in {"environ", "getenv"}
            and id(node) not in inside_main
        ]
    assert readers == []


@pytest.mark.parametrize("package", PACKAGES)
def test_records_that_cross_modules_are_frozen(package):
    schema = importlib.import_module(f"{package}.schema")
    records = [
        value
        for value in vars(schema).values()
        if inspect.isclass(value)
        and value.__module__ == schema.__name__
        and dataclasses.is_dataclass(value)
    ]
    assert records
    assert [record.__name__ for record in records if not record.__dataclass_params__.frozen] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_error_tree_in_the_docstring_is_the_real_one(package):
    errors = importlib.import_module(f"{package}.errors")
    tree = dict(re.findall(r"^[│├└─\s]*(\w+Error)\b(?:\s+\(also (\w+)\))?", errors.__doc__, re.M))
    real = {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert set(tree) == set(real)
    base = real[next(iter(tree))]
    for name, error in real.items():
        assert issubclass(error, base)
        builtins = {c.__name__ for c in error.__mro__ if c.__module__ == "builtins"}
        assert not tree[name] or tree[name] in builtins, f"{name} is not also {tree[name]}"


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_complete_and_exist(package):
    # That `__all__` is sorted is ruff's business (RUF022).
    module = importlib.import_module(package)
    names = getattr(module, "__all__", None)
    if names is None:  # a package may export nothing
        assert imported_names(ROOT / package / "__init__.py") <= {"__future__"}
        return
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(module, name)] == []
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and name not in {"annotations", "TYPE_CHECKING"}
        and getattr(value, "__module__", package).split(".")[0] == package
    }
    assert public <= set(names)


# --- What is installed -----------------------------------------------------------------------


@pytest.mark.parametrize("file_name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_exactly_and_torch_is_the_one_range(file_name):
    found = requirements(file_name)
    assert found
    if "torch" in found:
        assert found.pop("torch") == ">=2.6,<2.14"
    assert {n: v for n, v in found.items() if not re.fullmatch(r"==\d+(\.\w+)+", v)} == {}
    assert not set(found) & {"torchvision", "torchaudio", "opencv-python", "opencv-python-headless"}


def test_what_the_application_imports_is_in_the_requirements_a_space_installs():
    # dlib-bin's metadata names only its compiled part.
    distributions = {**packages_distributions(), "dlib": ["dlib-bin"]}
    installed = {re.sub(r"[-_.]+", "-", name).lower() for name in requirements("requirements.txt")}
    missing = {}
    for path in sources(*SHELL, *PACKAGES):
        for name in {dotted.split(".")[0] for dotted in imported_names(path)}:
            own = {*PACKAGES, *(file.removesuffix(".py") for file in SHELL)}
            if name in sys.stdlib_module_names or name in own:
                continue
            owners = {re.sub(r"[-_.]+", "-", n).lower() for n in distributions.get(name, [])}
            if not owners & installed:
                missing.setdefault(name, []).append(name_of(path))
    assert missing == {}


# --- What the documents say ------------------------------------------------------------------


def test_the_space_header_names_this_app_and_the_pinned_gradio():
    header = space_header()
    assert header["title"] == "Privacy Dial"
    assert header["sdk"] == "gradio"
    assert "==" + header["sdk_version"] == requirements("requirements.txt")["gradio"]
    assert header["python_version"] == "3.12"
    assert header["app_file"] == "app.py"
    assert (ROOT / header["app_file"]).is_file()
    assert header["license"] == "other"
    assert 0 < len(header["short_description"]) <= 60


def commands_of(package):
    """Return the commands `python -m package --help` offers."""
    done = subprocess.run(
        [sys.executable, "-m", package, "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    choices = re.search(r"\{([a-z][a-z,-]*)\}", done.stdout)
    if choices:
        return set(choices[1].split(","))
    return set(re.findall(r"^ {2,6}([a-z][a-z-]+)(?: {2,}\S|$)", done.stdout, re.MULTILINE))


def test_every_command_is_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for package in PACKAGES:
        if not (ROOT / package / "__main__.py").is_file():
            continue
        commands = commands_of(package)
        assert commands, f"no command found in `python -m {package} --help`"
        absent = {c for c in commands if not re.search(rf"python -m {package} {c}\b", readme)}
        assert absent == set()


def test_no_file_holds_a_path_of_one_machine():
    path_of_machine = re.compile(r"(?<![\w./~$}-])/(?:work|farm|root|home|tmp|Users)/")
    hits = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [n for n in folders if n == ".ci" or not n.startswith((".", "__pycache__"))]
        files = [Path(folder, name) for name in names if not name.startswith(".")]
        for path in (f for f in files if f.suffix in TEXT):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            hits += [
                f"{name_of(path)}:{number}"
                for number, line in enumerate(lines, 1)
                if path_of_machine.search(line)
            ]
    assert hits == []


# --- What the test suite itself promises -----------------------------------------------------


@pytest.mark.parametrize(("required", "outcome"), [(False, "1 skipped"), (True, "1 failed")])
def test_a_skipped_test_fails_where_every_tool_is_required(tmp_path, required, outcome):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_it():\n    pytest.skip('no browser')\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PRIVACY_DIAL_REQUIRE_TOOLS"}
    if required:
        environment["PRIVACY_DIAL_REQUIRE_TOOLS"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout
    assert "no browser" in done.stdout
    assert done.returncode == (1 if required else 0)


def test_a_test_that_reaches_for_another_machine_fails():
    with pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)
