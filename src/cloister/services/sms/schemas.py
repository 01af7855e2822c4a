"""What the SMS accepts as plain JSON; sessions and policies have parsers of their own in ``protocol``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class NonceRequest(BaseModel):
    """Asks for a nonce."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_id: Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{64}$")]
