"""The signal envelope, version 1, as the connector writes it (ARCHITECTURE §4, seed §7)."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from fleetprompt_edge.clock import stamp
from fleetprompt_edge.profile import Profile

SOURCE = "edge:proton_mail"


class Signal(NamedTuple):
    """A signal ready for the queue: its key, its type and its JSON text."""

    dedupe_key: str
    type: str
    body: str


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the signals of one connector of one tenant (its slug)."""

    profile: Profile
    tenant: str

    def write(
        self,
        kind: str,
        occurred_at: datetime,
        data: dict[str, Any],
        *,
        dedupe_key: str,
        correlation_id: str,
        subject: tuple[str, str] | None = None,
        causation_id: str | None = None,
    ) -> Signal:
        """One signal."""
        metadata = {
            "schema_version": 1,
            "correlation_id": correlation_id,
            "connector_id": self.profile.connector_id,
            "device_id": self.profile.device_id or self.profile.connector_id,
        }
        if not self.profile.privacy.hash_addresses:
            metadata["account_id"] = self.profile.bridge.username
        if causation_id is not None:
            metadata["causation_id"] = causation_id
        envelope: dict[str, Any] = {
            "type": kind,
            "source": SOURCE,
            "occurred_at": stamp(occurred_at),
            "data": data,
            "metadata": metadata,
            "dedupe_key": dedupe_key,
        }
        if subject is not None:
            envelope["subject_type"], envelope["subject_id"] = subject
        return Signal(
            dedupe_key, kind, json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))
        )

    def key(self, name: str, *parts: object) -> str:
        """A dedupe key: ``name:tenant:connector:part…``."""
        return ":".join(map(str, (name, self.tenant, self.profile.connector_id, *parts)))
