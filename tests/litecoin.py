"""A UTXO chain of one's own: litecoind on regtest, whose RPC is Bitcoin Core's, driven over its own JSON-RPC."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tools.local.process import tail, wait_until

_USER, _PASSWORD = "holdfast", "regtest"
#: A block's reward can be spent on top of so many blocks.
MATURITY = 100


class RpcError(Exception):
    """What the node refused."""


class Litecoin:
    """One chain with a wallet. ``url`` holds the user and the password."""

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self._to = f"http://{parts.hostname}:{parts.port}/"
        self._headers = {"Authorization": "Basic " + b64encode(f"{_USER}:{_PASSWORD}".encode()).decode()}

    def rpc(self, method: str, *params: Any) -> Any:
        body = json.dumps({"id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self._to, body, self._headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.load(response, parse_float=Decimal)
        except urllib.error.HTTPError as refused:
            answer = json.load(refused)
        if answer["error"] is not None:
            raise RpcError(answer["error"])
        return answer["result"]

    def begin(self) -> None:
        """A wallet with money that can be spent."""
        self.rpc("createwallet", "")
        self.miner = self.rpc("getnewaddress")
        self.mine(MATURITY + 20)

    def mine(self, blocks: int = 1) -> Sequence[str]:
        found: Sequence[str] = self.rpc("generatetoaddress", blocks, self.miner)
        return found

    def address(self, kind: str) -> tuple[str, bytes]:
        """A new one of the wallet, and its script: ``legacy``, ``p2sh-segwit`` or ``bech32``."""
        address = self.rpc("getnewaddress", "", kind)
        return address, bytes.fromhex(self.rpc("getaddressinfo", address)["scriptPubKey"])

    def spend(self, inputs: Sequence[Mapping[str, Any]], outputs: Mapping[str, str]) -> str:
        """A transaction of exactly these inputs and outputs; what is left is its fee."""
        given = [{"txid": each["txid"], "vout": each["vout"]} for each in inputs]
        raw = self.rpc("createrawtransaction", given, outputs)
        signed = self.rpc("signrawtransactionwithwallet", raw)
        assert signed["complete"], signed
        sent: str = self.rpc("sendrawtransaction", signed["hex"], 0)
        return sent

    def unspent(self, address: str, confirmations: int = 0) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = self.rpc("listunspent", confirmations, 9_999_999, [address])
        return found


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Litecoin]:
    """A chain that lasts for a block of code. Without litecoind a test is skipped, and in CI it fails."""
    program = shutil.which("litecoind")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("litecoind is not installed: .ci/run installs it")
        pytest.skip("litecoind is not installed (Debian: apt-get install litecoind)")
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    command = [
        *(program, "-regtest", f"-datadir={folder}", "-listen=0", "-dnsseed=0", "-upnp=0", "-txindex=1", "-debug=0"),
        *(f"-rpcport={port}", f"-rpcuser={_USER}", f"-rpcpassword={_PASSWORD}", "-fallbackfee=0.001"),
        # With the extension block mining on regtest ends at height 432.
        *("-vbparams=mweb:0:0", "-dbcache=16", "-rpcworkqueue=64", "-server=1"),
        *options,
    ]
    log = folder / "litecoind.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    node = Litecoin(f"http://{_USER}:{_PASSWORD}@127.0.0.1:{port}/")
    try:
        assert wait_until(lambda: _answers(node), limit_seconds=30), tail(log)
        yield node
    finally:
        process.kill()
        process.wait(10)


def _answers(node: Litecoin) -> bool:
    try:
        node.rpc("getblockcount")
    except (RpcError, OSError):
        return False
    return True
