"""The command line: `python -m tools COMMAND`. Only the chosen command's module is imported."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from tools.local.process import StackError

COMMANDS = {
    "up": "start the whole stack and keep it running (--detach returns when it is ready)",
    "down": "end the stack; the data stays",
    "status": "show what is running and whether it is healthy",
    "migrate": "bring the database's tables up to date",
    "register": "register search attributes and schedules with the Temporal server",
    "deploy": "make a build of the worker current and move runs that an earlier build left behind",
    "tenant": "create a tenant and print its first API key",
    "first-key": "make sure that a file holds a working API key",
    "seal-key": "make sure that there is a key to sign checkpoints with",
    "ledger": "verify: recompute all seals offline; names the first row that was edited, dropped or reordered",
    "prices": "show, set, refresh or accept prices; import those of the past",
    "chains": "check the file of chains that can be followed; start writes an example",
    "contract": "compile the escrow contract (--out writes its ABI and bytecode)",
    "build-id": "print the build id of this source",
    "healthcheck": "exit with 0 when a URL answers with a 2xx",
    "docs": "write the documents that are made from the code",
    "demo": "play a whole escrow against the running stack",
    "demo-chain": "play the main job on a chain of its own against the running stack, with a reorganisation",
    "fingerprints": "compare the commands of workflow code with the committed ones (--accept writes them)",
}


def main(arguments: list[str]) -> int:
    """Run one command; its exit status."""
    if not arguments or arguments[0] not in COMMANDS:
        wanted_help = not arguments or arguments[0] in ("-h", "--help", "help")
        usage = "\n".join(f"  {name:<12} {text}" for name, text in COMMANDS.items())
        stream = sys.stdout if wanted_help else sys.stderr
        complaint = "" if wanted_help else f"unknown command: {arguments[0]}\n"
        print(f"{complaint}usage: python -m tools COMMAND …\n\n{usage}", file=stream)
        return 0 if wanted_help else 2
    name = arguments[0]
    command = importlib.import_module(f"tools.commands.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser(prog=f"python -m tools {name}", description=COMMANDS[name])
    command.arguments(parser)
    try:
        status: int = command.run(parser.parse_args(arguments[1:]))
    except StackError as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        return 1
    return status


def leave(status: int) -> None:
    """End the process; at once where a Temporal client was loaded, whose threads can crash an orderly exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    if "temporalio" in sys.modules:
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    try:
        outcome = main(sys.argv[1:])
    except SystemExit as ending:
        if ending.code is not None and not isinstance(ending.code, int):
            print(ending.code, file=sys.stderr)
        outcome = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except KeyboardInterrupt:
        outcome = 130
    except BrokenPipeError:
        # Whoever read our output has read enough; nothing more can be said.
        os._exit(141)
    leave(outcome)
