"""A day of a small team: what a tenant of the demo has been through before its first digest."""

from datetime import UTC, datetime, timedelta
from typing import Any


def signals(tenant: str, now: datetime | None = None) -> list[dict[str, Any]]:
    """Signals of the last hours. Their dedupe keys name the day, so a second run adds nothing."""
    now = now or datetime.now(UTC)
    day = now.date().isoformat()

    def one(
        minutes_ago: int, type_: str, number: int, data: dict[str, Any], **rest: Any
    ) -> dict[str, Any]:
        return {
            "type": type_,
            "source": rest.pop("source", "agent:triage"),
            "occurred_at": (now - timedelta(minutes=minutes_ago)).isoformat(),
            "dedupe_key": f"demo:{tenant}:{day}:{type_}:{number}",
            "data": data,
            "metadata": {
                "schema_version": 1,
                "correlation_id": rest.pop("correlation_id", f"demo:{tenant}:{number}"),
            },
            **rest,
        }

    mail = [
        one(
            180 - 9 * n,
            "email.inbound.received",
            n,
            {"subject": subject, "snippet": "…", "attachments": n % 3},
            source="edge:proton_mail",
            subject_type="email",
            subject_id=f"mail-{n}",
        )
        for n, subject in enumerate(
            (
                *("Invoice for January", "Login does not work", "Re: offer", "Delivery is late"),
                *(
                    "Newsletter",
                    "Password reset does nothing",
                    "Thank you",
                    "Contract, second draft",
                ),
            )
        )
    ]
    runs = [
        one(
            170 - 9 * n,
            "agent.execution.completed",
            n,
            {
                "execution_id": f"{tenant}-{n}",
                "agent": "triage",
                "cost_usd": round(0.004 + n * 0.0017, 4),
                "tokens_in": 900 + 130 * n,
                "tokens_out": 120 + 10 * n,
            },
        )
        for n in range(6)
    ]
    failures = [
        one(
            50 - 12 * n,
            "agent.execution.failed",
            n,
            {
                "execution_id": f"{tenant}-f{n}",
                "agent": "triage",
                "error_kind": kind,
                "error_message": message,
            },
        )
        for n, (kind, message) in enumerate(
            (
                ("rate_limit", "the model's endpoint asked to wait 30 s"),
                ("rate_limit", "the model's endpoint asked to wait 30 s"),
                ("validation", "the reply was no JSON"),
            )
        )
    ]
    return mail + runs + failures
