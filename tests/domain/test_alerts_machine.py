"""Any order of answers, receipts, time and more of the same against an acknowledgement: nothing begins behind it, and
no message is sent again before it is known that the one before was not taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from domain.alerts.climb import acknowledge, end, receive, status
from domain.alerts.delivery import SILENCE, Heard, Word, is_further
from domain.alerts.model import Acknowledgement, Channel, DeliveryState, Ending, Policy, Status, Step
from tests.domain.alerts import USER, Story, alert, person

HEARD = st.sampled_from(list(Heard))
PLACE = st.integers(0, 30)


class Escalation(RuleBasedStateMachine):
    """One alert that climbs, two people on all ways, and vendors that say anything at any time."""

    def __init__(self) -> None:
        super().__init__()
        policy = Policy(
            must_acknowledge=True,
            steps=(Step(), Step(30, ("user", "desk"), tuple(Channel))),
            repeat=2,
            repeat_seconds=60,
            window_seconds=45,
        )
        self.story = Story(alert(policy=policy), person(*Channel), person(*Channel, user="desk"))
        self.open: dict[UUID, int] = {}
        self.begun_at: dict[int, Any] = {}
        self.over = False
        self.move(0)

    @rule(seconds=st.sampled_from([0, 1, 2, 10, 30, 60, 90, 700]))
    def move(self, seconds: int) -> None:
        """The workflow looks, so much later."""
        before = {each.number: each for each in self.story.alert.deliveries}
        moved = self.story.move(seconds)
        assert not (self.over and moved.begun), "an attempt began behind the acknowledgement"
        for earlier in before.values():
            # Time alone proves nothing of a text message, and of a mail when its vendor was silent for long; a callback
            # is known to its receiver by its id.
            after = self.story.alert.delivery(earlier.number)
            doubtful = earlier.state in (DeliveryState.SENDING, DeliveryState.UNKNOWN)
            if doubtful and (after.state is DeliveryState.PENDING or after.attempts > earlier.attempts):
                assert earlier.channel is not Channel.SMS
                assert earlier.channel is Channel.WEBHOOK or self.story.at - self.begun_at[earlier.number] >= SILENCE
        for number in moved.begun:
            delivery = self.story.alert.delivery(number)
            assert delivery.attempt_id is not None
            self.open[delivery.attempt_id] = number
            self.begun_at[number] = self.story.at

    @precondition(lambda self: self.open)
    @rule(place=PLACE, heard=HEARD)
    def answer(self, place: int, heard: Heard) -> None:
        """An attempt is answered; an old one, or one that was answered, changes nothing."""
        attempt_id = sorted(self.open)[place % len(self.open)]
        number = self.open[attempt_id]
        delivery = self.story.alert.delivery(number)
        current = delivery.attempt_id == attempt_id
        if current:
            moved = self.story.hear(number, heard)
            assert not (self.over and moved.begun)
            for begun in moved.begun:
                made = self.story.alert.delivery(begun)
                assert made.attempt_id is not None
                self.open[made.attempt_id] = begun
                self.begun_at[begun] = self.story.at

    @precondition(lambda self: self.open)
    @rule(place=PLACE, word=st.sampled_from(list(Word)))
    def receipt(self, place: int, word: Word) -> None:
        """A vendor says something of an attempt, new or old."""
        attempt_id = sorted(self.open)[place % len(self.open)]
        before = self.story.alert.delivery(self.open[attempt_id])
        self.story.alert = receive(self.story.alert, before.number, attempt_id, word, self.story.at)
        after = self.story.alert.delivery(before.number)
        assert after.state is before.state or is_further(before.state, after.state)

    @rule()
    def more(self) -> None:
        """It happens again."""
        if not self.over:
            self.story.alert = replace(self.story.alert, occurrences=self.story.alert.occurrences + 1)

    @precondition(lambda self: not self.over)
    @rule(by=st.sampled_from([USER, "desk"]), recovers=st.booleans())
    def finish(self, by: str, recovers: bool) -> None:
        """Somebody takes note, or it is over."""
        told = self.story.alert
        if recovers:
            self.story.alert = end(told, Ending.RECOVERED, self.story.at)
        else:
            self.story.alert = acknowledge(told, Acknowledgement(self.story.at, by, "api"))
            assert status(self.story.alert) is Status.ACKNOWLEDGED
        self.over = True

    @invariant()
    def it_ends(self) -> None:
        """Numbers are places, and nothing waits for ever once it is over and nothing is doubtful."""
        told = self.story.alert
        assert [each.number for each in told.deliveries] == list(range(1, len(told.deliveries) + 1))
        if self.over and told.step_at is not None:
            raise AssertionError("what is over climbs no further")


Escalation.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestEscalation = Escalation.TestCase
