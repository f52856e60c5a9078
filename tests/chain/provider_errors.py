"""Errors of nodes and vendors as they were published, where, and what each of them means to us.

``ponder``: ponder-sh/ponder, packages/utils/src/getLogsRetryHelper.ts, whose patterns are from errors of those vendors:
the words are theirs, the code is -32000 where it does not say. ``erpc``: likewise erpc/erpc,
architecture/evm/error_normalizer.go. Others are named by repository and issue, or by document.
"""

from __future__ import annotations

from dataclasses import dataclass

from activities.chain.ports import FaultKind
from activities.vendors.rpcfaults import Told


@dataclass(frozen=True)
class Published:
    """One error; ``limit_blocks`` is what follows from its words."""

    vendor: str
    source: str
    told: Told
    kind: FaultKind
    limit_blocks: int | None = None
    retry_after_seconds: float | None = None


LOGS, CALL, HEADER = "eth_getLogs", "eth_call", "eth_getBlockByNumber"


def _too_wide(vendor: str, source: str, code: int, text: str, limit: int | None, status: int = 200) -> Published:
    return Published(vendor, source, Told(status, code, text, LOGS), FaultKind.TOO_WIDE, limit)


def _too_much(vendor: str, source: str, code: int, text: str, limit: int | None = None) -> Published:
    return Published(vendor, source, Told(200, code, text, LOGS), FaultKind.TOO_MUCH, limit)


def _means(kind: FaultKind, vendor: str, source: str, told: Told, wait: float | None = None) -> Published:
    return Published(vendor, source, told, kind, retry_after_seconds=wait)


_ALCHEMY = (
    "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range and no limit on the "
    "response size, or you can request any block range with a cap of 10K logs in the response. Based on your "
    "parameters and the response size limit, this block range should work: [0x1dfaf9, 0x1dfb0c]"
)
_ALCHEMY_FREE = (
    "You can make eth_getLogs requests with up to a 500 block range. Based on your parameters, this block range should "
    "work: [0x1a30dfd, 0x1a30ff0]"
)

TOO_WIDE = (
    _too_wide("Alchemy, free", "boundless-xyz/boundless#838", -32600, _ALCHEMY_FREE, 500, 400),
    _too_wide("Infura", "INFURA/infura#237", -32602, "range 1000000 exceeds limit of 10000", 10_000),
    _too_wide("QuickNode", "arbitrum-sdk#609", -32614, "eth_getLogs is limited to a 10,000 range", 10_000, 413),
    _too_wide("QuickNode, free", "ponder", -32000, "eth_getLogs is limited to a 5 range", 5),
    _too_wide("Ankr", "ponder", -32600, "block range is too wide", None),
    _too_wide("Ankr, TAC", "ponder", -32000, "maximum [from, to] blocks distance: 10000", 10_000),
    _too_wide("Chainstack", "ponder", -32000, "Block range limit exceeded.", None),
    _too_wide(
        "dRPC, free",
        "Lasso.RPC.Providers.Adapters.DRPC",
        35,
        "ranges over 10000 blocks are not supported on freetier",
        10_000,
        400,
    ),
    _too_wide(
        "Cloudflare",
        "ponder",
        -32000,
        "Invalid eth_getLogs request. 'fromBlock'-'toBlock' range too large. Max range: 800",
        800,
    ),
    _too_wide("PublicNode", "ponder", -32000, "exceed maximum block range: 50000", 50_000),
    _too_wide(
        "BlastAPI", "ponder", -32000, "requested range exceeds the range allowed for your plan (5000 > 3000)", 3_000
    ),
    _too_wide("BlastAPI, free", "ponder", -32000, "eth_getLogs is limited to a 500 block range", 500),
    _too_wide("1RPC", "ponder", -32000, "eth_getLogs is limited to 0 - 50 blocks range", 50),
    _too_wide("BlockPI", "ponder", -32000, "eth_getLogs is limited to 1024 block range", 1_024),
    _too_wide("thirdweb", "ponder", -32000, "Maximum allowed number of requested blocks is 1000", 1_000),
    _too_wide("Coinbase", "ponder", -32000, "please limit the query to at most 1000 blocks", 1_000),
    _too_wide("Merkle", "ponder", -32000, "eth_getLogs range is too large, max is 10k blocks", 10_000),
    _too_wide("Base", "ponder", -32000, "block range too large", None),
    _too_wide("Optimism", "ponder", -32000, "Block range is too large", None),
    _too_wide(
        "Avalanche", "ponder", -32000, "requested too many blocks from 100 to 50099, maximum is set to 2048", 2_048
    ),
    _too_wide("BNB Chain", "alpha-wallet-android#2736", -32000, "exceed maximum block range: 5000", 5_000),
    _too_wide("BNB Chain, public", "bnb-chain/bsc#1215", -32005, "limit exceeded", None),
    _too_wide(
        "Polygon", "alpha-wallet-ios#3733", -32000, "eth_getLogs block range too large, range: 99991, max: 3500", 3_500
    ),
    _too_wide("Polygon zkEVM", "zkevm-node#3136", -32602, "logs are limited to a 10000 block range", 10_000),
    _too_wide("Moonriver", "moonbeam#3250", -32603, "block range is too wide (maximum 1024)", 1_024),
    _too_wide(
        "Morph",
        "enviodev/hyperindex#605",
        -32000,
        "block range is larger than max block range, block range = 5120, max block range = 5000",
        5_000,
    ),
    _too_wide("Candle", "alpha-wallet-ios#5277", -32600, "block range too high", None),
    _too_wide("Scroll", "scroll-tech/go-ethereum#529", -32000, "block range is bigger than maxBlockRange", None),
    _too_wide("Swell", "ponder", -32000, "block range greater than 1000 max", 1_000),
    _too_wide("Somnia", "ponder", -32000, "block range exceeds 1000", 1_000),
    _too_wide("Harmony", "ponder", -32000, "query must be smaller than size 1024", 1_024),
    _too_wide("Aurora", "ponder", -32000, "up to a 2,000 block range", 2_000),
    _too_wide("reth", "paradigmxyz/reth#8558", -32602, "query exceeds max block range 5000", 5_000),
    _too_wide(
        "Erigon", "erigontech/erigon#20424", -32602, "query block range exceeds server limit, narrow your filter: 5", 5
    ),
    _too_wide("cdk-erigon", "0xPolygon/cdk-erigon#1706", -32005, "block range too large, max range: 1000", 1_000),
)

TOO_MUCH = (
    _too_much("Alchemy", "joshstevens19/rindexer#181", -32602, _ALCHEMY, 20),
    _too_much("Infura", "docs.infura.io, eth_getLogs", -32005, "query returned more than 10000 results"),
    _too_much(
        "Infura, zkSync",
        "ponder",
        -32005,
        "query returned more than 10000 results. Try with this block range [0x1, 0x64].",
        100,
    ),
    _too_much("Infura", "docs.infura.io, eth_getLogs", -32005, "query timeout exceeded"),
    _too_much("Linea", "docs.linea.build, eth_getLogs", -32005, "query returned more than 10000 results"),
    _too_much(
        "LlamaRPC, reth",
        "ponder",
        -32000,
        "query exceeds max results 20000, retry with the range 24383075-24383096",
        22,
    ),
    _too_much("1RPC", "ponder", -32000, "response size should not greater than 10000000 bytes"),
    _too_much("Optimism", "ponder", -32000, "backend response too large"),
    _too_much("Arbitrum", "ponder", -32000, "logs matched by query exceeds limit of 10000"),
    _too_much(
        "dRPC, free",
        "Lasso.RPC.Providers.Adapters.DRPC",
        30,
        "Request timeout on the free tier, please upgrade your tier to the paid one",
    ),
    Published(
        "Erigon",
        "erigontech/erigon#7072",
        Told(200, -32000, "batch limit 100 exceeded: 142 requests given", "batch"),
        FaultKind.TOO_MUCH,
    ),
    Published("Base", "base/node#234", Told(200, -32600, "batch too large", "batch"), FaultKind.TOO_MUCH),
    Published(
        "Besu",
        "besu-eth/besu#4951",
        Told(200, -32602, "Number of requests in batch exceeds --rpc-max-batch-size.", "batch"),
        FaultKind.TOO_MUCH,
    ),
    Published(
        "jsonrpsee",
        "paritytech/jsonrpsee#1107",
        Told(200, -32010, "The batch request was too large: Exceeded max limit of 10", "batch"),
        FaultKind.TOO_MUCH,
    ),
    Published("any proxy", "RFC 9110, 15.5.14", Told(413, method=LOGS), FaultKind.TOO_MUCH),
)

BEHIND = tuple(
    _means(FaultKind.BEHIND, vendor, source, Told(200, code, text, method))
    for vendor, source, code, text, method in (
        ("geth", "execution-apis#534", -32000, "header not found", CALL),
        ("geth", "execution-apis, eth_getLogs tests", -32602, "block range extends beyond current head block", LOGS),
        ("geth", "EIP-234", -32000, "unknown block", LOGS),
        (
            "PublicNode",
            "execution-apis, eth_getLogs tests",
            -32602,
            "block range extends beyond current head block: requested 120, head 100",
            LOGS,
        ),
        ("reth", "paradigmxyz/reth#20202", -32602, "block range exceeds current head block", LOGS),
        ("Besu", "execution-apis#534", -32000, "Block not found", CALL),
        (
            "Parity",
            "openethereum#9256",
            -32000,
            "One of the blocks specified in filter (fromBlock, toBlock or blockHash) cannot be found",
            LOGS,
        ),
        ("Avalanche", "subsquid, evm-rpc", -32000, "cannot query unfinalized data", HEADER),
        (
            "Avalanche",
            "ava-labs/coreth, eth/filters",
            -32000,
            "requested from block 0x64 after last accepted block 0x32",
            LOGS,
        ),
        ("anvil", "measured, 1.7.1", -32602, "BlockOutOfRangeError: block height is 5 but requested was 32", LOGS),
        ("anvil", "measured, 1.7.1", -32001, "Resource not found", CALL),
        ("execution-apis", "its error groups", -39001, "Unknown block", CALL),
    )
)

NO_STATE = tuple(
    _means(FaultKind.NO_STATE, vendor, source, Told(200, code, text, CALL))
    for vendor, source, code, text in (
        (
            "geth",
            "go-ethereum#20874",
            -32000,
            "missing trie node ef7df5d88cb1614dc3f143879a653cd90717ee42e967c5fabbcd7505a968f314 (path )",
        ),
        ("geth", "go-ethereum#24070", -32000, "required historical state unavailable (reexec=128)"),
        ("geth", "execution-apis, EIP-4444", 4444, "pruned history unavailable"),
        (
            "Nethermind",
            "nethermind#9277",
            -32002,
            "No state available for block 0xe7b1e5b5b5c730816ef2b9627a85c227f6924f27504f1b36cc7328bff79ecc6e",
        ),
        (
            "Parity",
            "raiden#3566",
            -32000,
            "This request is not supported because your node is running with state pruning. Run with --pruning=archive",
        ),
        ("reth", "paradigmxyz/reth#14952", -32602, "distance to target block exceeds maximum proof window"),
        ("Citrea", "chainwayxyz/citrea#1899", -32603, "state at block #100 is pruned"),
        ("PublicNode", "allnodes.com/publicnode", -32602, "Archive requests require a personal token."),
        ("anvil, pruned", "measured, 1.7.1", -32603, "Required data unavailable"),
    )
)

_INFURA_RATE = "exceeded project rate limit rate={'allowed_rps': 5, 'backoff_seconds': 30, 'current_rps': 5.2}"
RATE_LIMITED = (
    _means(
        FaultKind.RATE_LIMITED,
        "Alchemy",
        "docs.alchemy.com, errors",
        Told(429, 429, "Your app has exceeded its compute units per second capacity.", LOGS),
    ),
    _means(
        FaultKind.RATE_LIMITED,
        "Alchemy, in a batch",
        "docs.alchemy.com, errors",
        Told(200, 429, "Your app has exceeded its compute units per second capacity.", HEADER),
    ),
    _means(FaultKind.RATE_LIMITED, "Infura", "status-im/status-go#4807", Told(429, -32005, _INFURA_RATE, LOGS), 30.0),
    _means(
        FaultKind.RATE_LIMITED,
        "Infura",
        "blockscout#7339",
        Told(200, -32005, "daily request count exceeded, request rate limited", LOGS),
    ),
    _means(
        FaultKind.RATE_LIMITED,
        "QuickNode",
        "quicknode.com/docs, errors",
        Told(429, -32007, "15/second request limit reached - reduce calls per second or upgrade your account", LOGS),
    ),
    _means(
        FaultKind.RATE_LIMITED, "Tenderly", "fluencelabs/dev-rewards#20", Told(429, -32005, "rate limit exceeded", CALL)
    ),
    _means(FaultKind.RATE_LIMITED, "Base", "base/node#368", Told(200, -32016, "over rate limit", LOGS)),
    _means(FaultKind.RATE_LIMITED, "many", "erpc", Told(200, -32000, "Monthly capacity limit exceeded", CALL)),
    _means(FaultKind.RATE_LIMITED, "many", "erpc", Told(200, -32000, "reached the free tier limits", CALL)),
    _means(FaultKind.RATE_LIMITED, "any proxy", "RFC 6585", Told(429, method=LOGS, retry_after_seconds=7.0), 7.0),
)

_CORE = "bitcoin/bitcoin, src/rpc"
CORE = tuple(
    _means(kind, "Bitcoin Core", _CORE, Told(status, code, text, method))
    for kind, status, code, text, method in (
        (FaultKind.BEHIND, 500, -5, "Block not found", "getblock"),
        (FaultKind.BEHIND, 500, -8, "Block height out of range", "getblockhash"),
        (FaultKind.NO_STATE, 500, -1, "Block not available (pruned data)", "getblock"),
        (FaultKind.UNAVAILABLE, 500, -28, "Loading block index...", "getblockchaininfo"),
        (FaultKind.UNAVAILABLE, 500, -28, "Verifying blocks...", "getblockchaininfo"),
        (FaultKind.UNAVAILABLE, 503, None, "", "batch"),
        (FaultKind.REFUSED, 401, None, "", "getblockhash"),
        (
            FaultKind.REFUSED,
            500,
            -5,
            "No such mempool transaction. Use -txindex or provide a block hash to enable blockchain queries",
            "getrawtransaction",
        ),
    )
)

OTHERS = (
    _means(
        FaultKind.REFUSED,
        "geth",
        "JSON-RPC 2.0",
        Told(200, -32601, "the method eth_getLogs does not exist/is not available", LOGS),
    ),
    _means(FaultKind.REFUSED, "anvil", "measured, 1.7.1", Told(200, -32601, "Method not found", CALL)),
    _means(FaultKind.REFUSED, "many", "erpc", Told(200, -32000, "method is not whitelisted", LOGS)),
    _means(FaultKind.REFUSED, "geth", "eth/api_backend.go", Told(200, -32000, "finalized block not found", HEADER)),
    _means(FaultKind.REFUSED, "Infura", "docs.infura.io, errors", Told(401, None, "invalid project id", LOGS)),
    _means(FaultKind.REFUSED, "any proxy", "RFC 9110", Told(403, method=LOGS)),
    _means(
        FaultKind.UNAVAILABLE,
        "Base",
        "ponder",
        Told(503, -32011, "no backend is currently healthy to serve traffic", LOGS),
    ),
    _means(FaultKind.UNAVAILABLE, "many", "JSON-RPC 2.0", Told(200, -32603, "Internal error", LOGS)),
    _means(FaultKind.UNAVAILABLE, "any proxy", "RFC 9110", Told(502, method=LOGS)),
    _means(FaultKind.UNAVAILABLE, "any proxy", "RFC 9110", Told(503, method=LOGS, retry_after_seconds=3.0), 3.0),
    _means(FaultKind.UNAVAILABLE, "many", "nothing is said", Told(200, -32000, "", LOGS)),
)

PUBLISHED = TOO_WIDE + TOO_MUCH + BEHIND + NO_STATE + RATE_LIMITED + CORE + OTHERS
