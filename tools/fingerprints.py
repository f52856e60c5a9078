"""Fingerprints of workflow code: which commands each workflow gives Temporal, method by method, in source order.

A running workflow is rebuilt by replaying its history, so code that gives its commands in another order breaks the runs
that are under way. A fingerprint makes such a change visible before a run meets it. What changes no command (a timeout,
a summary, a method that only computes) leaves it as it is. Commands are looked for in the file that defines the
workflow, where they belong, and in ``workflows/steps.py``, which has what all of them share.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from workflows import steps

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = ROOT / "tests" / "histories" / "fingerprints.json"

#: Commands by workflow type and method.
Fingerprints: TypeAlias = dict[str, dict[str, list[str]]]

ADVICE = """\
Workflow code now gives other commands than the committed fingerprints say. Running escrows replay this code.

1. Not meant? Put the commands back in their old order; a change beside them (a timeout, a summary) does no harm.
2. Meant, and a run can be under way at that place: keep the old path beside the new one,
   `if workflow.patched("what-changed"): …new… else: …old…`, or let runs reach the change through continue-as-new
   (the `move` signal starts a fresh run, which reads its state from Postgres).
3. The committed histories still replay (`python -m pytest tests/workflows/test_replay.py`) and the change is
   deliberate: `python -m tools fingerprints --accept`, and commit the file with the change.
   A change that makes a new kind of history: record it again with
   `HOLDFAST_RECORD=1 python -m pytest tests/workflows/test_replay.py -k live`, beside the old ones while runs of the
   old kind can still be under way.
"""

_TARGETED = {
    f"{verb}_{what}{suffix}": label
    for verb in ("execute", "start")
    for what, label, suffixes in (
        ("activity", "activity", ("", "_class", "_method")),
        ("local_activity", "local activity", ("", "_class", "_method")),
        ("child_workflow", "child workflow", ("",)),
    )
    for suffix in suffixes
} | {
    "patched": "patched",
    "deprecate_patch": "deprecate_patch",
    "get_external_workflow_handle": "external workflow",
    "get_external_workflow_handle_for": "external workflow",
}
#: What all workflows share has a fingerprint of its own.
_SHARED = steps.__name__
_PLAIN = ("sleep", "continue_as_new", "upsert_search_attributes", "upsert_memo")
_ASYNCIO_TIMERS = ("sleep", "wait_for", "timeout", "timeout_at")
_HANDLERS = ("run", "update", "signal", "query")

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_Loop: TypeAlias = ast.For | ast.AsyncFor | ast.While
_Comprehension: TypeAlias = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_CALL = "call "


def of_workflows(workflows: Iterable[type[Any]]) -> Fingerprints:
    """The fingerprints of workflow classes, and of what they share, read from their source files."""
    found: Fingerprints = {_SHARED: of_functions(Path(steps.__file__).read_text(encoding="utf-8"))}
    for workflow in workflows:
        path = inspect.getsourcefile(workflow)
        assert path is not None, f"{workflow.__name__} has a source file"
        found |= of_source(Path(path).read_text(encoding="utf-8"), workflow.__name__)
    return found


def of_source(source: str, class_name: str) -> Fingerprints:
    """The fingerprint of one workflow class, by the name that histories know it under."""
    module = ast.parse(source)
    names = _imported(module)
    classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    functions = {node.name: node for node in module.body if isinstance(node, _Function)}
    methods = _methods(class_name, classes)
    commands: dict[str, list[str]] = {}
    handlers: dict[str, list[str]] = {}
    for name, function in (functions | methods).items():
        reader = _Reader(names, methods, functions.keys() - methods.keys())
        reader.block(function.body)
        commands[name] = reader.found
        handlers[name] = [label for label in (_handler(node, name, names) for node in function.decorator_list) if label]
    reaching = _reaching(commands)
    kept = {
        name: handlers[name] + [line for line in lines if _reference(line) is None or _reference(line) in reaching]
        for name, lines in commands.items()
        if name in reaching or handlers[name]
    }
    return {_type_name(classes[class_name]): dict(sorted(kept.items()))}


def of_functions(source: str) -> dict[str, list[str]]:
    """The commands of a module's functions, of those that give any."""
    module = ast.parse(source)
    found: dict[str, list[str]] = {}
    for node in module.body:
        if isinstance(node, _Function):
            reader = _Reader(_imported(module), (), ())
            reader.block(node.body)
            found[node.name] = reader.found
    return {name: lines for name, lines in found.items() if lines}


def render(fingerprints: Fingerprints) -> str:
    """The committed file's text."""
    return json.dumps(fingerprints, indent=1, sort_keys=True) + "\n"


def difference(committed: str, now: str) -> str:
    """What changed between two rendered fingerprints, as a unified diff; empty when nothing did."""
    lines = difflib.unified_diff(committed.splitlines(), now.splitlines(), "committed", "code", lineterm="")
    return "\n".join(lines)


class _Reader(ast.NodeVisitor):
    """Collects the commands of a body in the order in which they are reached; arguments come before their call."""

    def __init__(self, names: Mapping[str, str], methods: Iterable[str], functions: Iterable[str]) -> None:
        self.found: list[str] = []
        self._names = names
        self._methods = frozenset(methods)
        self._functions = frozenset(functions)
        self._path: list[str] = []

    def block(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    @contextmanager
    def _within(self, label: str) -> Iterator[None]:
        self._path.append(label)
        yield
        self._path.pop()

    def _add(self, line: str) -> None:
        self.found.append(" / ".join([*self._path, line]))

    def visit_Call(self, node: ast.Call) -> None:
        self.block([*node.args, *node.keywords])
        command = _command(node, self._names)
        if command is None:
            self.visit(node.func)
        else:
            self._add(command)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name) and node.value.id == "self" and node.attr in self._methods:
            self._add(_CALL + node.attr)
        else:
            self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in self._functions:
            self._add(_CALL + node.id)

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        with self._within("if"):
            self.block(node.body)
        with self._within("else"):
            self.block(node.orelse)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        with self._within("if"):
            self.visit(node.body)
        with self._within("else"):
            self.visit(node.orelse)

    def _loop(self, node: _Loop) -> None:
        if not isinstance(node, ast.While):
            self.visit(node.iter)
        with self._within("loop"):
            self.block([node.test] if isinstance(node, ast.While) else [])
            self.block(node.body)
        self.block(node.orelse)

    visit_For = visit_AsyncFor = visit_While = _loop  # noqa: N815

    def _comprehension(self, node: _Comprehension) -> None:
        self.block(generator.iter for generator in node.generators)
        with self._within("loop"):
            self.block(condition for generator in node.generators for condition in generator.ifs)
            self.block([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        with self._within("except"):
            self.block(node.body)

    def visit_match_case(self, node: ast.match_case) -> None:
        with self._within("case"):
            self.block(node.body)

    def _nested(self, node: _Function) -> None:
        with self._within(f"def {node.name}"):
            self.block(node.body)

    visit_FunctionDef = visit_AsyncFunctionDef = _nested  # noqa: N815


def _imported(module: ast.Module) -> dict[str, str]:
    """What each imported name stands for."""
    names: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                names[bound] = alias.name if alias.asname else bound
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _methods(class_name: str, classes: Mapping[str, ast.ClassDef]) -> dict[str, _Function]:
    """A class's methods, with those that it inherits within the file."""
    found: dict[str, _Function] = {}
    for base in reversed(classes[class_name].bases):
        if isinstance(base, ast.Name) and base.id in classes:
            found |= _methods(base.id, classes)
    return found | {node.name: node for node in classes[class_name].body if isinstance(node, _Function)}


def _dotted(node: ast.expr, names: Mapping[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return "?"


def _command(call: ast.Call, names: Mapping[str, str]) -> str | None:
    """The command that a call gives, if any."""
    module, _, name = _dotted(call.func, names).rpartition(".")
    if module == "asyncio" and name in _ASYNCIO_TIMERS:
        return f"timer asyncio.{name}"
    if module == _SHARED and name == steps.run_step.__name__:
        return f"local activity {ast.unparse(call.args[0])}"
    if module == _SHARED and name == steps.outlast.__name__:
        return name
    if module != "temporalio.workflow":
        return None
    if name in _TARGETED:
        return f"{_TARGETED[name]} {ast.unparse(call.args[0]) if call.args else '?'}"
    if name == "wait_condition":
        return "timer wait_condition" if _has_timeout(call) else None
    return name if name in _PLAIN else None


def _has_timeout(call: ast.Call) -> bool:
    given = [keyword.value for keyword in call.keywords if keyword.arg == "timeout"]
    return bool(given) and not (isinstance(given[0], ast.Constant) and given[0].value is None)


def _handler(decorator: ast.expr, method: str, names: Mapping[str, str]) -> str | None:
    """What a decorator makes of a method: ``update fund``."""
    call = decorator if isinstance(decorator, ast.Call) else None
    module, _, kind = _dotted(call.func if call else decorator, names).rpartition(".")
    if module != "temporalio.workflow" or kind not in _HANDLERS:
        return None
    return kind if kind == "run" else f"{kind} {_named(call, method)}"


def _named(call: ast.Call | None, otherwise: str) -> str:
    for keyword in call.keywords if call else ():
        if keyword.arg == "name":
            return ast.unparse(keyword.value).strip("'\"")
        if keyword.arg == "dynamic":
            return "(any)"
    return otherwise


def _type_name(node: ast.ClassDef) -> str:
    calls = (decorator for decorator in node.decorator_list if isinstance(decorator, ast.Call))
    return next((name for name in (_named(call, "") for call in calls) if name), node.name)


def _reference(line: str) -> str | None:
    """The method that a line calls; None for a command."""
    last = line.rpartition(" / ")[2]
    return last.removeprefix(_CALL) if last.startswith(_CALL) else None


def _reaching(commands: Mapping[str, list[str]]) -> frozenset[str]:
    """The methods that give a command, by themselves or through others."""
    reaching = {name for name, lines in commands.items() if any(_reference(line) is None for line in lines)}
    while True:
        more = {name for name, lines in commands.items() if any(_reference(line) in reaching for line in lines)}
        if more <= reaching:
            return frozenset(reaching)
        reaching |= more
