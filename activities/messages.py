"""What every message that travels through Temporal shares. Messages age with histories: fields are only ever added."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, PlainSerializer

from db.audit import Origin


class Message(BaseModel):
    """An immutable message. Unknown fields are ignored, so that an older worker reads a newer message."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def log_context(self) -> dict[str, str]:
        """What every log line of the step that takes this message carries."""
        return {}


#: Minor units travel as text: a browser that shows a history would round a JSON number above 2**53.
MinorUnits = Annotated[int, PlainSerializer(str, return_type=str)]


class OriginMessage(Message):
    """Who asked: the party acted for, the API key, and the request."""

    user_id: str | None = None
    key_id: UUID | None = None
    request_id: str | None = None

    def log_context(self) -> dict[str, str]:
        """The request that the step goes back to, where there is one."""
        return {} if self.request_id is None else {"request_id": self.request_id}

    def to_origin(self, workflow_id: str) -> Origin:
        """The audit's view of it."""
        return Origin(self.user_id, self.key_id, self.request_id, workflow_id)
