"""Every code with which the rules of margin refuse, and what it means. Codes are for ever; wording may improve."""

from __future__ import annotations

from typing import Final

CODES: Final = {
    "asset_not_accepted": "the margin parameters in force do not name this asset",
    "position_too_large": "a margin position has at most 10**30 whole units of its asset",
    "price_unusable": "an asset of the account has no price, or one that is too old to compute with",
    "level_looser": "a user's warning levels are at least as tight as the platform's",
    "level_too_high": "a warning level is a health factor of at most 100",
    "levels_out_of_order": "a milder level is reached no later than a worse one",
    "parameters_missing": "a version of the margin parameters names at least one asset",
    "shares_out_of_order": "loan-to-value is not above the liquidation threshold, and neither is above 1",
    "share_too_large": "a bonus is at most 1, and a borrow rate at most 10 a year",
    "effective_from_in_past": "a version of the margin parameters takes effect now or later",
}
