"""The rules of the house that a syntax tree can show. Each takes a module and answers what is wrong with it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.house.source import Module

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

#: What rules and replayed code must not reach for: the clock, chance, the environment.
IMPURE = {
    "datetime.now",
    "datetime.utcnow",
    "date.today",
    "time.time",
    "time.monotonic",
    "uuid4",
    "uuid.uuid4",
    "uuid.uuid1",
    "os.environ",
    "os.getenv",
    "os.urandom",
    "random.random",
    "random.randint",
    "random.choice",
    "secrets.token_hex",
    "secrets.token_bytes",
}

#: Where Role.ENGINE, which sees every tenant, may be taken.
ENGINE_USERS = {"db/engine.py", "worker.py", "tools/tenants.py"}

#: Where transactions begin and end. Everything else is handed a connection.
TRANSACTION_USERS = {"db/engine.py", "db/migrations/env.py"}

_STEP_LIMITS = {"start_to_close_timeout", "schedule_to_close_timeout", "retry_policy"}


def small(module: Module) -> Iterator[str]:
    """Files to 400 lines, functions to 70; a migration is as long as its tables."""
    lines = module.text.count("\n") + 1
    if lines > FILE_LINES_MAX and "/migrations/versions/" not in module.path:
        yield f"{module.path}: {lines} lines, {FILE_LINES_MAX} at most"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield f"{module.path}:{node.lineno} {node.name}: {length} lines, {FUNCTION_LINES_MAX} at most"


def not_empty(module: Module) -> Iterator[str]:
    """A file says something, or it is not there; only a package's marker may be bare."""
    if not module.text.strip() and not module.path.endswith("__init__.py"):
        yield f"{module.path} is empty"


def pure(module: Module) -> Iterator[str]:
    """No clock, no chance, no environment."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute | ast.Name) and dotted(node) in IMPURE:
            yield f"{module.path}:{node.lineno} uses {dotted(node)}"


def exact(module: Module) -> Iterator[str]:
    """No float comes near money."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield f"{module.path}:{node.lineno} has the float {node.value}"
        if isinstance(node, ast.Call) and dotted(node.func) == "float":
            yield f"{module.path}:{node.lineno} calls float()"


def commits_in_one_place(module: Module) -> Iterator[str]:
    """Only the engine module begins and ends transactions."""
    if module.path in TRANSACTION_USERS:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in {"commit", "rollback", "begin_nested"}:
                yield f"{module.path}:{node.lineno} calls .{node.func.attr}()"
            if node.func.attr == "begin" and dotted(node.func.value).split(".")[-1].strip("_") == "engine":
                yield f"{module.path}:{node.lineno} begins a transaction by itself"


def engine_role_is_listed(module: Module) -> Iterator[str]:
    """The role that sees every tenant is taken on a checked list of modules."""
    if module.path in ENGINE_USERS:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and dotted(node) == "Role.ENGINE":
            yield f"{module.path}:{node.lineno} takes Role.ENGINE"


def waits_have_limits(module: Module) -> Iterator[str]:
    """A step names its limits where it is called; a timer says what it stands for."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        given = {keyword.arg for keyword in node.keywords}
        name = node.func.attr
        if name.startswith(("execute_activity", "start_activity", "execute_local_activity", "start_local_activity")):
            missing = _STEP_LIMITS - given
            if missing:
                yield f"{module.path}:{node.lineno} {name} without {', '.join(sorted(missing))}"
            if "summary" not in given:
                yield f"{module.path}:{node.lineno} {name} without a summary"
        if name == "wait_condition" and "timeout" in given and "timeout_summary" not in given:
            yield f"{module.path}:{node.lineno} wait_condition with a timeout but without timeout_summary"
        if name == "sleep" and dotted(node.func) == "workflow.sleep" and "summary" not in given:
            yield f"{module.path}:{node.lineno} workflow.sleep without a summary"


def vendors_stay_outside(module: Module) -> Iterator[str]:
    """Vendor modules are imported by the composition root alone, so that no vendor's SDK loads in the API."""
    if module.path == "worker.py" or module.path.startswith("activities/vendors/"):
        return
    yield from (f"{module.path} imports {name}" for name in imports(module) if name.startswith("activities.vendors"))


def root_stays_on_top(module: Module) -> Iterator[str]:
    """The composition root is imported by tools alone."""
    if module.room not in {"tools", "worker.py"}:
        yield from (f"{module.path} imports worker" for name in imports(module) if name.split(".")[0] == "worker")


def settings_are_read_on_top(module: Module) -> Iterator[str]:
    """Dependencies arrive by constructor; processes read settings, rooms do not."""
    if module.room in {"domain", "db", "activities", "workflows"}:
        yield from (f"{module.path} imports {name}" for name in imports(module) if name.startswith("kit.settings"))


def imports(module: Module) -> Iterator[str]:
    """The dotted names that a module imports."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(node: ast.expr) -> str:
    """``a.b.c`` for a name or an attribute of names, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""
