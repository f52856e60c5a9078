"""The words of alerts in each language. ``$name`` stands for a fact; see ``render``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from domain.alerts.model import AlertType


class Words(NamedTuple):
    """One alert in one language. ``short`` is the text message; the link and how to answer come behind it."""

    subject: str
    lead: str
    short: str


class Language(NamedTuple):
    """What all alerts in one language share."""

    facts: Mapping[str, str]
    #: How advice is said, by action; ``$also_repay`` stands for further debts with their amounts.
    advice: Mapping[str, str]
    advice_head: str
    repeated: str
    repeated_short: str
    button: str
    footer: str
    reply: str
    alerts: Mapping[AlertType, Words]


_EN: Final = Language(
    facts={
        "health_score": "Health factor",
        "threshold_breached": "Threshold",
        "collateral_usd": "Collateral (USD)",
        "borrow_usd": "Debt (USD)",
        "endpoint": "Endpoint",
        "account": "Account",
        "told_level": "Told",
        "strict_level": "Computed",
        "relayer": "Relayer",
        "chain": "Chain",
        "provider": "Provider",
        "event": "Event",
        "onchain_id": "Id on chain",
        "token": "Token",
        "block": "Block",
        "unexplained": "Unexplained",
        "job": "Job",
        "name": "Name",
        "from_block": "From block",
        "to_block": "To block",
        "reason": "Reason",
    },
    advice={
        "repay": "Repay $amount $asset",
        "repay_several": "Repay $amount $asset, and with it $also_repay",
        "top_up": "Add $amount $asset as collateral",
        "sell": "Sell $amount $asset and repay $repay_amount $repay_asset",
    },
    advice_head="What leads back to health $target:",
    repeated="This has happened $count times since $since.",
    repeated_short="$count times since $since.",
    button="Acknowledge",
    footer="You receive this because it was set up for your account. Quiet hours and channels are yours to choose.",
    reply="Reply OK $code.",
    alerts={
        AlertType.WARNING: Words(
            "Margin warning: health $health_score",
            "The health of your margin account is below $threshold_breached. Nothing has to be done yet, but a further"
            " fall leads to a margin call.",
            "Margin warning: health $health_score is below $threshold_breached.",
        ),
        AlertType.CALL: Words(
            "MARGIN CALL: health $health_score",
            "The health of your margin account is below $threshold_breached. Add collateral or repay now; otherwise the"
            " account can be liquidated.",
            "MARGIN CALL: health $health_score is below $threshold_breached. Act now.",
        ),
        AlertType.IMMINENT: Words(
            "LIQUIDATION IMMINENT: health $health_score",
            "The health of your margin account is below $threshold_breached. A small further fall makes the account"
            " liquidatable. Add collateral or repay at once.",
            "LIQUIDATION IMMINENT: health $health_score. Act at once.",
        ),
        AlertType.DUE: Words(
            "LIQUIDATION DUE: health $health_score",
            "The health of your margin account is below $threshold_breached: it can be liquidated at any moment.",
            "LIQUIDATION DUE: health $health_score. Your account can be liquidated now.",
        ),
        AlertType.RECOVERED: Words(
            "Over: your margin account has recovered",
            "The health of your margin account is back above $threshold_breached. The alert before this one is closed;"
            " nothing more is sent about it.",
            "Over: your margin account is back above $threshold_breached.",
        ),
        AlertType.WEBHOOK_DISABLED: Words(
            "A webhook endpoint was disabled",
            "A webhook endpoint failed for so long that nothing more is sent to it. Repair it, enable it again, and"
            " replay what it missed.",
            "A webhook endpoint was disabled after repeated failures.",
        ),
        AlertType.AUDIT_DISAGREED: Words(
            "AUDIT: a margin account was told wrong",
            "The auditor recomputed a margin account and disagrees with what its user was last told. Look at the book"
            " before you trust its alerts.",
            "AUDIT: a margin account was told wrong. Look at the book.",
        ),
        AlertType.RELAYER_HALTED: Words(
            "RELAYER HALTED: nothing of a chain is published",
            "A relayer stopped by itself, since going on could have been wrong. Nothing of its chain is published or"
            " settled until somebody has looked and resumed it.",
            "RELAYER HALTED: $relayer stopped by itself. Nothing is published until it is resumed.",
        ),
        AlertType.PROVIDER_ACCUSED: Words(
            "A provider of $chain gave an answer that cannot be true",
            "A provider left something out, or contradicts the contract or the others. Others were asked instead, and"
            " nothing wrong was kept; the provider is left alone for a while.",
            "Provider $provider of $chain was caught in an untrue answer; others were asked.",
        ),
        AlertType.EVENT_DISAGREED: Words(
            "A final event of a chain disagrees with our rules",
            "An event of the contract is final, but the rules of this desk would not have done it. Its escrow is not"
            " moved any more. Look at contract and escrow before anything else is done with it.",
            "A final event of $relayer disagrees with our rules: $event.",
        ),
        AlertType.BOOKS_DIFFER: Words(
            "BOOKS DIFFER: contract and ledger disagree",
            "A contract's books and our ledger were compared at a final block. They differ by what nothing explains.",
            "BOOKS DIFFER: $relayer and the ledger disagree by $unexplained.",
        ),
        AlertType.BACKFILL_FAILED: Words(
            "A backfill failed",
            "A backfill ended without having all of its blocks. What it had brought stays; it can be retried.",
            "A backfill of $name failed; it can be retried.",
        ),
        AlertType.CONTACT_CODE: Words(
            "Your code: $code",
            "Your code is $code. It is valid for 15 minutes. If you did not ask for it, you can ignore this message.",
            "Your code is $code. It is valid for 15 minutes.",
        ),
    },
)

_DE: Final = Language(
    facts={
        "health_score": "Gesundheitsfaktor",
        "threshold_breached": "Schwelle",
        "collateral_usd": "Sicherheiten (USD)",
        "borrow_usd": "Schulden (USD)",
        "endpoint": "Endpunkt",
        "account": "Konto",
        "told_level": "Gesagt",
        "strict_level": "Berechnet",
        "relayer": "Relayer",
        "chain": "Chain",
        "provider": "Anbieter",
        "event": "Ereignis",
        "onchain_id": "Kennung auf der Chain",
        "token": "Token",
        "block": "Block",
        "unexplained": "Ungeklärt",
        "job": "Auftrag",
        "name": "Name",
        "from_block": "Ab Block",
        "to_block": "Bis Block",
        "reason": "Grund",
    },
    advice={
        "repay": "$amount $asset zurückzahlen",
        "repay_several": "$amount $asset und dazu $also_repay zurückzahlen",
        "top_up": "$amount $asset als Sicherheit einbringen",
        "sell": "$amount $asset verkaufen und $repay_amount $repay_asset zurückzahlen",
    },
    advice_head="So wird wieder ein Faktor von $target erreicht:",
    repeated="Das ist seit $since $count-mal geschehen.",
    repeated_short="Seit $since $count-mal.",
    button="Bestätigen",
    footer="Sie erhalten diese Nachricht, weil sie für Ihr Konto eingerichtet ist. Ruhezeiten und Wege bestimmen Sie.",
    reply="Antworten Sie OK $code.",
    alerts={
        AlertType.WARNING: Words(
            "Margin-Warnung: Faktor $health_score",
            "Der Gesundheitsfaktor Ihres Margin-Kontos liegt unter $threshold_breached. Noch ist nichts zu tun, aber"
            " ein weiterer Rückgang führt zum Margin Call.",
            "Margin-Warnung: Faktor $health_score liegt unter $threshold_breached.",
        ),
        AlertType.CALL: Words(
            "MARGIN CALL: Faktor $health_score",
            "Der Gesundheitsfaktor Ihres Margin-Kontos liegt unter $threshold_breached. Bringen Sie jetzt Sicherheiten"
            " ein oder zahlen Sie zurück; sonst kann das Konto liquidiert werden.",
            "MARGIN CALL: Faktor $health_score liegt unter $threshold_breached. Jetzt handeln.",
        ),
        AlertType.IMMINENT: Words(
            "LIQUIDATION DROHT: Faktor $health_score",
            "Der Gesundheitsfaktor Ihres Margin-Kontos liegt unter $threshold_breached. Ein kleiner weiterer Rückgang"
            " macht das Konto liquidierbar. Handeln Sie sofort.",
            "LIQUIDATION DROHT: Faktor $health_score. Sofort handeln.",
        ),
        AlertType.DUE: Words(
            "LIQUIDATION FÄLLIG: Faktor $health_score",
            "Der Gesundheitsfaktor Ihres Margin-Kontos liegt unter $threshold_breached: Es kann jederzeit liquidiert"
            " werden.",
            "LIQUIDATION FÄLLIG: Faktor $health_score. Ihr Konto kann jetzt liquidiert werden.",
        ),
        AlertType.RECOVERED: Words(
            "Vorbei: Ihr Margin-Konto hat sich erholt",
            "Der Gesundheitsfaktor Ihres Margin-Kontos liegt wieder über $threshold_breached. Der Alarm davor ist"
            " geschlossen; dazu folgt nichts mehr.",
            "Vorbei: Ihr Margin-Konto liegt wieder über $threshold_breached.",
        ),
        AlertType.WEBHOOK_DISABLED: Words(
            "Ein Webhook-Endpunkt wurde abgeschaltet",
            "Ein Webhook-Endpunkt ist so lange fehlgeschlagen, dass nichts mehr an ihn gesendet wird. Reparieren Sie"
            " ihn, schalten Sie ihn wieder ein und lassen Sie Verpasstes nachsenden.",
            "Ein Webhook-Endpunkt wurde nach wiederholten Fehlern abgeschaltet.",
        ),
        AlertType.AUDIT_DISAGREED: Words(
            "PRÜFUNG: Ein Margin-Konto erhielt eine falsche Auskunft",
            "Die Prüfung hat ein Margin-Konto neu berechnet und widerspricht dem, was seinem Inhaber zuletzt gesagt"
            " wurde. Sehen Sie nach dem Buch, bevor Sie seinen Meldungen trauen.",
            "PRÜFUNG: Ein Margin-Konto erhielt eine falsche Auskunft. Bitte nachsehen.",
        ),
        AlertType.RELAYER_HALTED: Words(
            "RELAYER STEHT: Von einer Chain wird nichts veröffentlicht",
            "Ein Relayer hat von selbst angehalten, weil es falsch sein könnte, weiterzumachen. Nichts von seiner Chain"
            " wird veröffentlicht oder abgewickelt, bis jemand nachgesehen und ihn fortgesetzt hat.",
            "RELAYER STEHT: $relayer hat von selbst angehalten. Bis zur Fortsetzung wird nichts veröffentlicht.",
        ),
        AlertType.PROVIDER_ACCUSED: Words(
            "Ein Anbieter von $chain gab eine Antwort, die nicht wahr sein kann",
            "Ein Anbieter hat etwas ausgelassen oder widerspricht dem Vertrag oder den anderen. Statt seiner wurden"
            " andere gefragt, und nichts Falsches wurde übernommen; er bleibt eine Weile ungefragt.",
            "Anbieter $provider von $chain gab eine unwahre Antwort; andere wurden gefragt.",
        ),
        AlertType.EVENT_DISAGREED: Words(
            "Ein endgültiges Ereignis einer Chain widerspricht unseren Regeln",
            "Ein Ereignis des Vertrags ist endgültig, aber die Regeln dieses Hauses hätten es nicht zugelassen. Das"
            " Treuhandgeschäft wird nicht weiter bewegt. Sehen Sie Vertrag und Geschäft an, bevor etwas anderes folgt.",
            "Ein endgültiges Ereignis von $relayer widerspricht unseren Regeln: $event.",
        ),
        AlertType.BOOKS_DIFFER: Words(
            "BÜCHER UNEINS: Vertrag und Hauptbuch widersprechen sich",
            "Die Bücher eines Vertrags wurden bei einem endgültigen Block mit dem Hauptbuch verglichen. Sie weichen um"
            " einen Betrag ab, den nichts erklärt.",
            "BÜCHER UNEINS: $relayer und Hauptbuch weichen um $unexplained ab.",
        ),
        AlertType.BACKFILL_FAILED: Words(
            "Ein Nachladen ist gescheitert",
            "Ein Nachladen endete, ohne alle seine Blöcke zu haben. Was es gebracht hat, bleibt; es kann wiederholt"
            " werden.",
            "Das Nachladen von $name ist gescheitert; es kann wiederholt werden.",
        ),
        AlertType.CONTACT_CODE: Words(
            "Ihr Code: $code",
            "Ihr Code ist $code. Er gilt 15 Minuten. Falls Sie ihn nicht angefordert haben, können Sie diese Nachricht"
            " ignorieren.",
            "Ihr Code ist $code. Er gilt 15 Minuten.",
        ),
    },
)

#: The languages by locale.
LANGUAGES: Final[Mapping[str, Language]] = {"en": _EN, "de": _DE}
