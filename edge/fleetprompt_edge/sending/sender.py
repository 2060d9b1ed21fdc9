"""One directive to its end, exactly once.

1. Known already? What is certain is told again. Another content under the same id is refused.
2. Checked and accepted: noted, and told as ``email.outbound.requested``.
3. If an earlier try may have reached Bridge, look among the sent mail first, until it would be there.
4. Note the try, then hand the mail to Bridge. It always has the same Message-ID.
5. Only what is seen among the sent mail was sent: Bridge answers 250 to a mail that it takes for a repetition
   of another of the last half hour, and sends nothing (trap 1).

What nobody can tell yet is not reported: the lease runs out, and the next attempt begins at 1.
"""

import json
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, Protocol

from fleetprompt_edge.clock import Clock
from fleetprompt_edge.envelope import Writer
from fleetprompt_edge.errors import EdgeError, ErrorKind, StoreError
from fleetprompt_edge.log import logger
from fleetprompt_edge.sending.letter import letter, message_id_of
from fleetprompt_edge.sending.order import Order, UnfitOrderError, digest, order_of
from fleetprompt_edge.sending.sent import SentMail
from fleetprompt_edge.sending.smtp import Delivery
from fleetprompt_edge.store import Store
from fleetprompt_edge.store.sends import Send, Waiting
from fleetprompt_edge.upload.platform import Leased

APPEARS = 90  # seconds in which a mail that was sent shows itself among the sent mail
_LOOK_AGAIN = 5.0
_ALIKE = (
    1_860  # seconds in which Bridge swallows a mail that looks like another: 30 min and a margin
)
_HOUR = 3_600


class Delivers(Protocol):
    """Whoever hands a mail to Bridge."""

    def hand_over(self, sender: str, recipients: Sequence[str], content: bytes) -> Delivery:
        """Send; never raises for what Bridge or the network does."""


class Sender:
    """Works off directives of type ``email.send``; used by one thread."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        organization_id: str,
        courier: Delivers,
        sent: SentMail,
        clock: Clock,
        stop: Event,
    ) -> None:
        self._store = store
        self._writer = writer
        self._organization_id = organization_id
        self._courier = courier
        self._sent = sent
        self._clock = clock
        self._stop = stop

    def work(self, leased: Leased, held: Callable[[], bool]) -> None:
        """One attempt; its report, where there is one, is in the store then.

        ``held`` renews the lease: nothing is given to Bridge without it.
        """
        if leased.type != "email.send":
            self._report(leased, "failed", "validation", "This connector only sends mail.")
            return
        content = digest(leased.params)
        with self._store.transaction():
            known = self._store.sends.find(leased.id)
        if known is not None and known.content != content:
            self._report(leased, "failed", "validation", "It came before with another content.")
        elif known is not None and known.state in ("sent", "failed"):
            self._tell_again(leased, known)
        else:
            self._try(leased, content, known, held)

    def given_up(self, reported: Waiting) -> None:
        """FleetPrompt asks for no other attempt: tell, if nobody has yet, that the mail was not sent.

        Under a key of the attempt's own: a person may ask for another attempt, which is told by itself.
        """
        known = self._store.sends.find(reported.directive_id)
        said = json.loads(reported.body)
        if known is None or said["outcome"] != "retry":
            return
        data: dict[str, Any] = {"recipients": known.recipients, "message_id": known.message_id}
        data |= {name: said[name] for name in ("error_kind", "error_message")}
        key = f"email_out_given_up:{self._writer.tenant}:{known.directive_id}:{reported.attempt}"
        correlation_id = reported.correlation_id or f"directive:{known.directive_id}"
        self._tell(known.directive_id, correlation_id, "failed", data, key)

    def _try(
        self, leased: Leased, content: bytes, known: Send | None, held: Callable[[], bool]
    ) -> None:
        try:
            order = order_of(leased.params, self._writer.profile)
            at = self._clock.now()
            message_id = (
                known.message_id
                if known
                else message_id_of(self._organization_id, leased.id, order.sender)
            )
            mail = letter(order, message_id, at)
            if len(mail) > self._writer.profile.sending.max_message_bytes:
                raise UnfitOrderError("The mail is larger than sending.max_message_bytes.")
        except UnfitOrderError as error:
            if known is None:
                known = Send(leased.id, content, b"", "", 0, "accepted")
                with self._store.transaction():
                    self._store.sends.add(known)
                    self._end(leased, known, Delivery("refused", "validation", str(error)))
            elif known.state == "accepted":
                self._end(leased, known, Delivery("refused", "validation", str(error)))
            elif self._appears(known):
                self._end(leased, known, None)
            else:
                # The rules became stricter after a try whose end nobody saw.
                self._report(leased, "unknown", "validation", str(error))
            return
        if known is None:
            known = self._accept(leased, content, order, message_id)
        if known.state == "trying":
            appears = self._appears(known)
            if appears is None or appears:
                if appears:
                    self._end(leased, known, None)
                return
        if self._may_go(leased, known) and held() and not self._stop.is_set():
            self._hand_over(leased, known, order, mail)

    def _accept(self, leased: Leased, content: bytes, order: Order, message_id: str) -> Send:
        known = Send(
            leased.id, content, order.likeness(), message_id, len(order.recipients), "accepted"
        )
        if leased.attempt > 1:
            # Where the database was lost, an attempt that nobody remembers may have sent it.
            known = known._replace(state="trying", tried_at=int(self._clock.now().timestamp()))
        with self._store.transaction():
            self._store.sends.add(known)
            key = f"email_out_requested:{self._writer.tenant}:{leased.id}"
            data = {"message_id": message_id}
            self._tell(leased.id, leased.correlation_id, "requested", data, key)
        return known

    def _may_go(self, leased: Leased, known: Send) -> bool:
        """Whether the rate, and Bridge's memory for mails that look alike, allow it now."""
        now = int(self._clock.now().timestamp())
        with self._store.transaction():
            sends = self._store.sends
            # What was tried much later than now was so by a clock that was put right since (trap 36).
            alike = sends.alike(known.likeness, leased.id, now - _ALIKE, now + _ALIKE)
            written = sends.recipients(now - _HOUR, now + _HOUR)
        if known.tried_at is not None and known.tried_at > now - _HOUR:
            written -= known.recipients
        if alike is not None:
            wait, message = (
                alike + _ALIKE - now,
                "Bridge would take it for a repetition of another mail.",
            )
        elif written + known.recipients > self._writer.profile.sending.max_recipients_per_hour:
            wait, message = 600, "As many were written to in this hour as the connector may."
        else:
            return True
        if known.state == "accepted":
            self._report(
                leased, "retry", "rate_limit", message, retry_after=float(min(max(wait, 1), _ALIKE))
            )
        return False

    def _hand_over(self, leased: Leased, known: Send, order: Order, mail: bytes) -> None:
        now = int(self._clock.now().timestamp())
        before = known.state
        with self._store.transaction():
            self._store.sends.begin(leased.id, now)
        known = known._replace(state="trying", tried_at=now)
        done = self._courier.hand_over(order.sender, order.recipients, mail)
        logger.info(
            "handed over",
            extra={"directive": leased.id, "became": done.became, "kind": done.kind},
        )
        if done.became == "not_taken":
            # Of an earlier try this says nothing.
            self._retry(leased, known, done, certain=before == "accepted")
        elif done.became == "refused" and before == "trying":
            self._report(leased, "unknown", done.kind, done.message)
        elif done.became == "refused":
            self._end(leased, known, done)
        else:
            appears = self._appears(known)
            if appears:
                self._end(leased, known, None)
            elif appears is False and done.said_no:
                self._retry(leased, known, done, certain=False)
            elif appears is False and done.became == "taken":
                self._report(
                    leased,
                    "unknown",
                    "unknown",
                    "Bridge took the mail and does not show it among the sent mail: it may have been "
                    "suppressed_by_bridge as a repetition of another.",
                )

    def _retry(self, leased: Leased, known: Send, done: Delivery, *, certain: bool = True) -> None:
        with self._store.transaction():
            if certain:
                self._store.sends.not_begun(known.directive_id)
            self._report(leased, "retry", done.kind, done.message, retry_after=done.retry_after)

    def _appears(self, known: Send) -> bool | None:
        """Whether the mail shows itself in time; None if nobody can tell, or it is time to stop."""
        tried_at = known.tried_at or 0
        left = min(float(APPEARS), max(0.0, tried_at + APPEARS - self._clock.now().timestamp()))
        until = self._clock.monotonic() + left
        while not self._stop.is_set():
            late = self._clock.monotonic() >= until
            try:
                if self._sent.has(known.message_id, tried_at):
                    return True
            except StoreError:
                raise
            except EdgeError as error:
                logger.warning("the sent mail cannot be read", extra={"code": error.code})
                if late:
                    return None
            else:
                if late:
                    return False
            self._clock.wait(self._stop, _LOOK_AGAIN)
        return None

    def _end(self, leased: Leased, known: Send, refused: Delivery | None) -> None:
        """It is certain: note it, tell it and report it, all or nothing."""
        with self._store.transaction():
            if refused is None:
                self._store.sends.end(leased.id, "sent")
            else:
                self._store.sends.end(leased.id, "failed", refused.kind, refused.message)
            ended = self._store.sends.find(leased.id)
            data: dict[str, Any] = {"recipients": known.recipients}
            if known.message_id:
                data["message_id"] = known.message_id
            if refused is not None:
                data |= {"error_kind": refused.kind, "error_message": refused.message}
            what = "sent" if refused is None else "failed"
            # The seed's form (§7.3): one outcome for each directive, whoever tries it.
            key = f"email_out:{self._writer.tenant}:{leased.id}"
            self._tell(leased.id, leased.correlation_id, what, data, key)
            if ended is not None:
                self._tell_again(leased, ended)

    def _tell_again(self, leased: Leased, known: Send) -> None:
        if known.state == "sent":
            self._report(leased, "succeeded", result={"message_id": known.message_id})
        else:
            self._report(leased, "failed", known.error_kind, known.error_message)  # type: ignore[arg-type]  # stored as given

    def _tell(
        self, directive_id: str, correlation_id: str, what: str, data: dict[str, Any], key: str
    ) -> None:
        now = self._clock.now()
        signal = self._writer.write(
            f"email.outbound.{what}",
            now,
            data,
            dedupe_key=key,
            correlation_id=correlation_id,
            subject=("directive", directive_id),
            causation_id=f"directive:{directive_id}",
        )
        self._store.queue.put(signal.dedupe_key, signal.type, signal.body, int(now.timestamp()))

    def _report(
        self,
        leased: Leased,
        outcome: str,
        error_kind: ErrorKind | None = None,
        error_message: str | None = None,
        *,
        result: dict[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        said = {
            "attempt": leased.attempt,
            "lease_token": leased.lease_token,
            "outcome": outcome,
            "result": result,
            "error_kind": error_kind,
            "error_message": error_message,
            "retry_after_seconds": retry_after,
        }
        body = json.dumps({name: value for name, value in said.items() if value is not None})
        with self._store.transaction():
            waiting = Waiting(leased.id, leased.attempt, body, leased.correlation_id)
            self._store.sends.put_report(waiting)
