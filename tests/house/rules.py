"""The rules of the house that a syntax tree can show. Each takes a module and answers what is wrong with it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping

from tests.house.source import Module

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

#: What rules and replayed code must not reach for: the clock, chance, the environment.
IMPURE_MODULES = {"random", "secrets", "time"}
IMPURE = {
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
    "os.environ",
    "os.getenv",
    "os.urandom",
    "uuid.uuid1",
    "uuid.uuid4",
    "uuid.uuid6",
    "uuid.uuid7",
}
#: Timers in workflow code that nobody can read in the Temporal UI.
UNNAMED_TIMERS = {"asyncio.sleep", "asyncio.wait_for", "asyncio.timeout"}

#: Where amounts are computed.
EXACT = (
    "domain/",
    "db/ledger",
    "db/escrow",
    "activities/ledger",
    "activities/escrow",
    "activities/margin",
    "activities/transfers",
    "db/settlement",
    "db/reconciliation",
    "db/transfers",
    "db/margin",
    "db/prices",
    "activities/prices",
)

#: Where floats are allowed among them, and why. Such a module knows nothing of ours, so no amount is made there.
INEXACT: Mapping[str, str] = {
    "domain/chain/pace.py": "how fast a job goes and when it may end, which nobody is owed",
    "domain/margin/risk/chances.py": "logarithms and probabilities, which no integer expresses",
}

#: The composition root: what puts the parts together, and what the outside offers.
ROOT_MODULES = ("worker.py", "crew.py", "chainwork.py", "outside.py")

#: Where Role.ENGINE, which sees every tenant, may be taken, and why.
ENGINE_USERS: Mapping[str, str] = {
    "db/engine.py": "names the role",
    "worker.py": "hands it to the relay, the sealer, retention, reconciliation, prices, webhooks and the margin book",
    "tools/prices.py": "adds prices of the past, and accepts what waits for an operator",
    "tools/tenants.py": "makes tenants and their first keys",
    "tools/seals/verify.py": "compares every tenant's rows with their seals, and only reads",
}

#: Where SQLAlchemy's transactions begin and end. Everything else is handed a connection.
TRANSACTION_MAKERS = {"db/engine.py", "db/migrations/env.py"}

#: Who may open a transaction, and why. Steps that write go through db/step.py, routes through the API's `Call`.
TRANSACTION_USERS: Mapping[str, str] = {
    "activities/alerts/sending.py": "reads an attempt whose row is written, before it is handed over",
    "activities/alerts/watch.py": "finds overdue alerts of every tenant",
    "activities/vendors/mailbox.py": "is the vendor of a house without keys: keeps one message a transaction",
    "activities/chain/beginning.py": "moves a cursor that skips the past to where the contract says that it stands",
    "activities/chain/gauges.py": "reads where every tenant's relayers stand, for the metrics",
    "activities/chain/following.py": "writes a piece of a chain with its cursor, coverage and events, one a commit",
    "activities/chain/settling.py": "reads final events, escrows and receipts before it speaks to the escrows",
    "activities/chain/books.py": "reads what contracts are asked for, before they are asked",
    "activities/chain/relayer.py": "reads where a relayer stands; finds relayers of every tenant that are silent",
    "activities/chain/backfill.py": "reads a job before a command or an end opens its step",
    "activities/chain/backfill_watch.py": "finds idle jobs of every tenant; deletes old ones, one batch a transaction",
    "activities/chain/budget.py": "draws a slice of a provider's budget, which all processes share",
    "activities/chain/noting.py": "writes down how providers do, every few seconds",
    "activities/chain/filling.py": "writes a piece of a chunk with coverage, progress and event, one a commit",
    "activities/chain/jobs.py": "lays out what a job fetches, and looks at what is stored of it",
    "activities/consuming.py": "reads a page of the feed, and moves the cursor once the page is delivered",
    "activities/book/audit.py": "recomputes every tenant's accounts page by page, and keeps what disagrees",
    "activities/book/part.py": "reads accounts of every tenant in one snapshot",
    "activities/book/steps.py": "writes what accounts of every tenant are told, a batch of them in one commit",
    "activities/book/watch.py": "asks whether the book is behind",
    "activities/escrow/steps.py": "reads an escrow that is recorded already, before it opens a step",
    "activities/escrow/watch.py": "finds overdue escrows of every tenant",
    "activities/transfers/chain.py": "reads what a chain's reference names, before and after its step",
    "activities/transfers/steps.py": "reads a transfer that is recorded already, and what its reference names",
    "activities/transfers/watch.py": "finds overdue transfers of every tenant",
    "activities/margin/sync.py": "finds out which users of which tenants have a margin account",
    "activities/ledger/steps.py": "reads assets and what a reversal takes back, before and after its step",
    "activities/reconciliation/steps.py": "reads and adds up the books page by page; begins and ends a run by steps",
    "activities/prices/steps.py": "writes a refresh, whose receipt is its tick; makes partitions of history ahead",
    "activities/relay.py": "gives committed events their position, one batch a transaction",
    "activities/retention.py": "deletes what is old, one batch a transaction",
    "activities/settlement/escrow.py": "reads commands, escrows and receipts before it speaks to the escrows",
    "activities/settlement/watch.py": "finds commands of every tenant that wait too long",
    "activities/webhooks/due.py": "asks which endpoints have something due",
    "activities/webhooks/fanout.py": "finds out who wants the events of a page",
    "activities/webhooks/lane.py": "writes attempts down before their requests, a group in one commit",
    "activities/webhooks/noting.py": "writes what came of attempts, a group in one commit",
    "activities/webhooks/replaying.py": "begins the deliveries of a page of a replay",
    "activities/webhooks/steps.py": "finds endpoints that nobody works for; ends what waits for deleted ones",
    "activities/sealing/sealer.py": "seals one batch a transaction, and signs checkpoints",
    "api/alerts/links.py": "finds whose alert a signed link names, before its tenant is known",
    "api/alerts/receipts.py": "takes what vendors say, whose signature names no tenant",
    "api/auth.py": "finds a key before its tenant is known, and counts the uses of all tenants at once",
    "api/deps.py": "the API's session: the transaction of every route",
    "api/health.py": "asks whether Postgres answers",
    "api/pricebook.py": "reads the platform's prices for every tenant at once",
    "api/streams.py": "finds out for whom the feed grew, and reads for streams that share a place",
    "db/ledger/group.py": "one commit for all postings of a tenant that wait together",
    "db/step.py": "one step, one commit",
    "tools/prices.py": "one commit for an import, one for what an operator accepts",
    "tools/tenants.py": "makes a tenant with its first key",
    "worker.py": "reads the schema's revision, and makes the first partitions, before it begins to work",
}
_VERBS = {"commit", "rollback", "begin", "begin_nested"}
_STATEMENTS = {"BEGIN", "COMMIT", "ROLLBACK", "AUTOCOMMIT"}
_OPENERS = {"db.engine.transaction", "db.engine.tenant_transaction"}

_STEP_LIMITS = {"start_to_close_timeout", "schedule_to_close_timeout", "retry_policy", "summary"}
_CHILD_LIMITS = {"id", "parent_close_policy", "static_summary"}
_START_LIMITS = {"id", "task_timeout", "static_summary"}
_STARTS = {"start_workflow", "execute_workflow", "WithStartWorkflowOperation", "ScheduleActionStartWorkflow"}


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
    said = [
        node for node in module.tree.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]
    if not said and not module.path.endswith("__init__.py"):
        yield f"{module.path} is empty"


def pure(module: Module) -> Iterator[str]:
    """No clock, no chance, no environment: they are arguments, or ``workflow.now()``, ``.random()``, ``.uuid4()``."""
    for name in imports(module):
        if top(name) in IMPURE_MODULES:
            yield f"{module.path} imports {name}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute | ast.Name) and module.meaning(node) in IMPURE:
            yield f"{module.path}:{node.lineno} uses {module.meaning(node)}"


def timers_are_named(module: Module) -> Iterator[str]:
    """Workflow code waits by ``workflow.sleep`` and ``wait_condition``, whose timers say what they stand for."""
    if module.path == "workflows/caller.py":
        return  # the API's side: it is never replayed
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute | ast.Name) and module.meaning(node) in UNNAMED_TIMERS:
            yield f"{module.path}:{node.lineno} uses {module.meaning(node)}"


def waits_can_be_ended(module: Module) -> Iterator[str]:
    """No ``asyncio.wait_for``: up to Python 3.11 it forgets a cancellation that meets the end of what it waits for, and
    a process that was told to stop goes on. ``asyncio.timeout`` does not."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute | ast.Name) and module.meaning(node) == "asyncio.wait_for":
            yield f"{module.path}:{node.lineno} uses asyncio.wait_for"


def exact(module: Module) -> Iterator[str]:
    """No float comes near money: no literal, no ``float``, no true division."""
    if not module.path.startswith(EXACT):
        return
    if module.path in INEXACT:
        ours = (name for name in imports(module) if top(name) not in sys.stdlib_module_names)
        yield from (f"{module.path} may use floats and imports {name}" for name in ours)
        return
    yield from inexact(module)


def inexact(module: Module) -> Iterator[str]:
    """Every float of a module."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Constant(value=float(value)):
                yield f"{module.path}:{node.lineno} has the float {value}"
            case ast.Name(id="float"):
                yield f"{module.path}:{node.lineno} uses float"
            case ast.BinOp(op=ast.Div()):
                yield f"{module.path}:{node.lineno} divides by /, which makes a float of integers"


def commits_in_one_place(module: Module) -> Iterator[str]:
    """Only the engine module begins and ends transactions."""
    if module.path in TRANSACTION_MAKERS:
        return
    for node in ast.walk(module.tree):
        match node:
            # A function of a module that is called `begin` begins no transaction.
            case ast.Call(func=ast.Attribute(attr=verb) as called) if verb in _VERBS and not module.meaning(called):
                yield f"{module.path}:{node.lineno} calls .{verb}()"
            case ast.Constant(value=str(said)) if said.strip(" ;\n").upper() in _STATEMENTS:
                yield f"{module.path}:{node.lineno} says {said!r}"


def opens_transactions(module: Module) -> bool:
    """Whether a module asks for transactions of its own."""
    local = module.path == "db/engine.py"
    return any(
        isinstance(node, ast.Call)
        and (module.meaning(node.func) in _OPENERS or (local and dotted(node.func) == "transaction"))
        for node in ast.walk(module.tree)
    )


def takes_engine_role(module: Module) -> bool:
    """Whether a module takes the role that sees every tenant, by its member or by its name."""
    return any(
        (isinstance(node, ast.Attribute) and dotted(node).endswith("Role.ENGINE"))
        or (isinstance(node, ast.Constant) and node.value == "holdfast_engine")
        for node in ast.walk(module.tree)
    )


def transactions_are_listed(module: Module) -> Iterator[str]:
    """Who opens a transaction stands on a checked list, with the reason."""
    if opens_transactions(module) and module.path not in TRANSACTION_USERS:
        yield f"{module.path} opens a transaction of its own"


def engine_role_is_listed(module: Module) -> Iterator[str]:
    """The role that sees every tenant is taken on a checked list of modules."""
    if takes_engine_role(module) and module.path not in ENGINE_USERS:
        yield f"{module.path} takes Role.ENGINE"


def waits_have_limits(module: Module) -> Iterator[str]:
    """A step names its limits where it is called; a timer says what it stands for."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg for keyword in node.keywords}
        package, _, name = module.meaning(node.func).rpartition(".")
        if package != "temporalio.workflow":
            continue
        required: set[str] = set()
        if name.startswith(("execute_activity", "start_activity", "execute_local_activity", "start_local_activity")):
            required = _STEP_LIMITS
        elif name.endswith("_child_workflow"):
            required = _CHILD_LIMITS
        elif name == "wait_condition" and "timeout" in given:
            required = {"timeout_summary"}
        elif name == "sleep":
            required = {"summary"}
        if required - given:
            yield f"{module.path}:{node.lineno} {name} without {', '.join(sorted(required - given))}"


def starts_are_told(module: Module) -> Iterator[str]:
    """A workflow starts with an id that reads, a summary, and a task timeout after which another worker takes over."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func).rpartition(".")[2] or (node.func.attr if isinstance(node.func, ast.Attribute) else "")
        missing = _START_LIMITS - {keyword.arg for keyword in node.keywords}
        if name in _STARTS and missing:
            yield f"{module.path}:{node.lineno} {name} without {', '.join(sorted(missing))}"


def domain_stands_alone(module: Module) -> Iterator[str]:
    """Rules outlive libraries: the standard library and the domain itself, nothing else."""
    for name in imports(module):
        if top(name) != "domain" and top(name) not in sys.stdlib_module_names:
            yield f"{module.path} imports {name}"


def workflows_know_temporal_alone(module: Module) -> Iterator[str]:
    """Workflow code is replayed: of third parties it knows Temporal's own library."""
    for name in imports(module):
        ours = {"temporalio", "domain", "activities", "workflows"}
        if top(name) not in ours and top(name) not in sys.stdlib_module_names:
            yield f"{module.path} imports {name}"


def vendors_stay_outside(module: Module) -> Iterator[str]:
    """Vendor modules are imported by the composition root alone, so that no vendor's SDK loads in the API."""
    if module.path in ROOT_MODULES or module.path.startswith("activities/vendors/"):
        return
    yield from (f"{module.path} imports {name}" for name in imports(module) if name.startswith("activities.vendors"))


def root_stays_on_top(module: Module) -> Iterator[str]:
    """The composition root is imported by tools alone."""
    if module.room not in {"tools", *ROOT_MODULES}:
        yield from (f"{module.path} imports {name}" for name in imports(module) if f"{top(name)}.py" in ROOT_MODULES)


def tests_stay_outside(module: Module) -> Iterator[str]:
    """What is shipped does not know its tests."""
    yield from (f"{module.path} imports {name}" for name in imports(module) if top(name) == "tests")


def settings_are_read_on_top(module: Module) -> Iterator[str]:
    """Dependencies arrive by constructor; processes read settings, rooms do not."""
    if module.room in {"domain", "db", "activities", "workflows"}:
        yield from (f"{module.path} imports {name}" for name in imports(module) if name.startswith("kit.settings"))


def imports(module: Module) -> Iterator[str]:
    """The dotted names that a module imports; a relative one begins with a dot, and no rule allows it."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def written_in_full(module: Module) -> Iterator[str]:
    """Imports are written in full: the rules about them read names."""
    yield from (f"{module.path} imports {name}" for name in imports(module) if name.startswith("."))


def top(name: str) -> str:
    """The package that a dotted name lies in."""
    return name.partition(".")[0]


def dotted(node: ast.expr) -> str:
    """``a.b.c`` for a name or an attribute of names, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""
