"""The rules of this code base that import-linter cannot say: each is checked on the syntax tree of every module."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ("gateway", "pool", "generation", "verification", "sampling", "cascade", "training")
ROLES = {"main", "settings", "api", "tasks", "service", "repository", "models", "client"}
QUERY_BUILDERS = {"select", "insert", "update", "delete", "text"}
HEAVY = {"torch", "vllm", "trl", "peft", "transformers", "datasets", "accelerate"}


def modules(*roots: str) -> list[Path]:
    return sorted(path for root in roots for path in (ROOT / root).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def top_level_imports(tree: ast.Module) -> Iterator[str]:
    """Modules imported when this one is: not those inside functions or under `if TYPE_CHECKING`."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module and statement.level == 0:
            yield statement.module
        elif isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            waiting.extend(statement.orelse)
        elif isinstance(statement, ast.If | ast.Try | ast.With | ast.ClassDef):
            waiting.extend(child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.stmt))


@pytest.mark.parametrize("path", modules("services"), ids=name_of)
def test_queries_are_in_repositories(path: Path):
    if "repository" in path.relative_to(ROOT).with_suffix("").parts or path.stem == "models":
        pytest.skip("a repository")
    tree = ast.parse(path.read_text())
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy")
        for alias in node.names
    }
    found = [
        f"{name_of(path)}:{node.lineno} {ast.unparse(node.func)}("
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id in QUERY_BUILDERS & imported)
            or (isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in {f"sa.{b}" for b in QUERY_BUILDERS})
        )
    ]
    assert not found, f"queries belong into repository.py: {found}"


def runs_the_trainer(path: Path) -> bool:
    """Modules of services/training that a run's own process imports, and only lazily anything else."""
    return path.is_relative_to(ROOT / "services" / "training") and path.stem not in ROLES - {"client"}


@pytest.mark.parametrize("path", modules("shared", "services"), ids=name_of)
def test_heavy_libraries_are_imported_by_what_runs_them(path: Path):
    if runs_the_trainer(path) and path.stem != "__init__":
        pytest.skip("part of the trainer")
    heavy = sorted(module for module in top_level_imports(ast.parse(path.read_text())) if module.split(".")[0] in HEAVY)
    assert not heavy, f"{name_of(path)} imports {heavy} at its top"


def returns_a_value(handler: ast.ExceptHandler) -> bool:
    return any(
        isinstance(node, ast.Return) and node.value is not None for child in handler.body for node in ast.walk(child)
    )


def is_broad(handler: ast.ExceptHandler) -> bool:
    names = {ast.unparse(node) for node in ast.walk(handler.type)} if handler.type else {"BaseException"}
    return bool(names & {"Exception", "BaseException"})


# Where a failure is data: whatever a checker does to an answer is `unscored` with its reason, never a crash of the service.
FAILURE_IS_DATA = {"services/verification/worker.py"}


@pytest.mark.parametrize("path", modules("shared", "services"), ids=name_of)
def test_no_unknown_failure_becomes_a_value(path: Path):
    if name_of(path) in FAILURE_IS_DATA:
        pytest.skip("the boundary")
    broad = [
        f"{name_of(path)}:{handler.lineno}"
        for handler in ast.walk(ast.parse(path.read_text()))
        if isinstance(handler, ast.ExceptHandler) and is_broad(handler) and returns_a_value(handler)
    ]
    assert not broad, f"catch what you expect; anything else is a crash: {broad}"


@pytest.mark.parametrize("service", SERVICES)
def test_services_use_the_role_names(service: str):
    folder = ROOT / "services" / service
    roles = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()} & ROLES
    assert "settings" in roles or "main" in roles or "tasks" in roles, (
        f"services/{service} has none of its entry points"
    )
    for forbidden in ("utils", "helpers", "common", "misc"):
        assert not list(folder.rglob(f"{forbidden}*")), f"services/{service}: split by subject, not into {forbidden}"


def test_the_console_script_starts_fast_and_light():
    check = (
        "import sys, services.local.cli; "
        "print([name for name in ('torch', 'vllm', 'sqlalchemy', 'transformers', 'celery', 'matplotlib') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def test_help_answers_in_half_a_second():
    """Counted in processor time, so that a busy machine says the same."""

    def seconds() -> float:
        before = os.times()
        command = [sys.executable, "-m", "services.local.cli", "--help"]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(5)) < 0.5
