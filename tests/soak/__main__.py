"""`python -m tests.soak`: kill everything, again and again, and see that nothing is lost."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.soak.result import Size, document, lines, save_result
from tests.soak.run import Soak
from tools.local.process import StackError

EXIT_INTERRUPTED = 130


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", default=os.environ.get("HOLDFAST_SEED") or secrets.token_hex(4))
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long clients work under fire")
    parser.add_argument("--escrows", type=int, default=200)
    parser.add_argument("--savers", type=int, default=100, help="clients that deposit and withdraw, four times each")
    parser.add_argument("--commands", type=int, default=5_000)
    parser.add_argument("--folder", type=Path, help="where data, logs and journal go; kept (by default a new one)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the result there as a page, too")
    return parser.parse_args()


async def main(options: argparse.Namespace) -> int:
    """Run it; the exit status."""
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="holdfast-soak-"))).absolute()
    size = Size(options.seed, options.kills, options.minutes * 60, options.escrows, options.savers, options.commands)
    say(f"seed {size.seed}; data, logs and journal are in {folder}")
    soak = Soak(size, folder, say)
    running = asyncio.current_task()
    assert running is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        result = await soak.run()
    except asyncio.CancelledError:
        say("interrupted; everything was ended")
        return EXIT_INTERRUPTED
    except (StackError, TimeoutError) as error:
        say(f"the soak could not be finished: {type(error).__name__} {error}")
        return 1
    save_result(result, folder / "result.json")
    if options.record is not None:
        options.record.write_text(document(result, datetime.now(UTC).date()))
    for line in lines(result):
        say(line)
    if result.wrong:
        say(f"logs and journal are in {folder}")
    return 1 if result.wrong else 0


def say(text: str) -> None:
    """A line for whoever watches."""
    print(text, flush=True)


if __name__ == "__main__":
    status = asyncio.run(main(arguments()))
    sys.stdout.flush()
    # A process that opened a Temporal client can crash at the interpreter's own exit.
    os._exit(status)
