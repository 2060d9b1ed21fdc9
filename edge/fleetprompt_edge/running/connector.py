"""A whole connector: it opens the mailbox, starts the threads, and ends them all.

1. One thread asks FleetPrompt whom the key belongs to, for the tenant's name and the right time; then it
   beats the heart while another one sends what waits.
2. One thread opens the mailbox and finds the folders; what is there now is old (``ingest.baseline``). Once
   the tenant is known, each folder gets a thread that watches it. Where the profile means folders by pattern
   or attribute, it looks again every few minutes for those that came and went.

Neither side waits for the other's being well: mail is read while FleetPrompt is down, and what waits is
sent, and Bridge's fault told, while Bridge is. But nothing leaves before FleetPrompt has said whose the key
is: what waits may belong to another organization.
"""

import uuid
from collections.abc import Callable, Sequence
from threading import Event, Thread

from fleetprompt_edge.backoff import Backoff
from fleetprompt_edge.clock import Clock
from fleetprompt_edge.envelope import Writer
from fleetprompt_edge.errors import EdgeError, PlatformAuthError, StoreError
from fleetprompt_edge.imap.folders import may_come, watched_folders
from fleetprompt_edge.imap.session import Session
from fleetprompt_edge.ingest.baseline import begin
from fleetprompt_edge.ingest.pace import Pace
from fleetprompt_edge.ingest.reader import Reader, Watched
from fleetprompt_edge.ingest.setup import reader_for
from fleetprompt_edge.log import logger
from fleetprompt_edge.profile import Profile
from fleetprompt_edge.running.door import Door
from fleetprompt_edge.running.errands import Errands
from fleetprompt_edge.running.health import Health
from fleetprompt_edge.running.post import Heart, Post
from fleetprompt_edge.running.watch import Watch
from fleetprompt_edge.sending.sender import Delivers, Sender
from fleetprompt_edge.sending.sent import SentMail
from fleetprompt_edge.store import Store
from fleetprompt_edge.upload.platform import Me, Platform
from fleetprompt_edge.upload.uploader import Uploader

_END_SECONDS = 4.0  # that the threads have to end
_LIST_AGAIN = 300.0  # seconds between two looks at which folders there are


class Connector:
    """One profile's connector, on a store whose lock is held."""

    def __init__(
        self,
        profile: Profile,
        store: Store,
        knock: Callable[[], Session],
        platform: Platform,
        clock: Clock,
        courier: Delivers | None = None,
    ) -> None:
        self._profile = profile
        self._courier = courier
        self._errands: Errands | None = None
        self._store = store
        self._platform = platform
        self._clock = clock
        self._stop = Event()
        self._wake = Event()
        self._door = Door(knock, clock)
        self._health = Health(store, clock)
        self._watches: dict[str, Watch] = {}
        self._threads: list[Thread] = []
        self._failure: BaseException | None = None
        self._ahead: float | None = None
        self._asked = Event()
        self._writer: Writer | None = None
        self._known = Event()
        self._sure = Event()

    def stop(self) -> None:
        """Ask it to end; may be called from a signal handler."""
        for one in (self._stop, self._wake, self._asked, self._known, self._sure):
            one.set()

    def run(self) -> None:
        """Until stopped. Raises ``StoreError`` when nothing can be remembered any more, and
        ``PlatformAuthError`` when the key is of another organization or connector."""
        try:
            self._start("platform", self._platform_side)
            self._start("mailbox", self._mailbox_side)
            self._stop.wait()
        finally:
            self._end()
        if self._failure is not None:
            raise self._failure

    def _platform_side(self) -> None:
        """Learn the tenant, then send and beat the heart."""
        self._ask_once()
        self._asked.set()
        tenant = self._tenant()
        if tenant is None:
            return
        writer = self._writer = self._health.writer = Writer(self._profile, tenant)
        self._known.set()
        uploader = Uploader(self._store, self._platform, self._clock)
        post = Post(uploader, self._health, self._clock, self._stop, self._wake)
        self._start("post", lambda: self._send(post))
        self._run_errands(writer)
        heart = Heart(self._store, self._health, writer, self._clock, uuid.uuid4().hex)
        while not self._stop.is_set():
            heart.beat()
            self._wake.set()
            self._clock.wait(self._stop, self._profile.health.heartbeat_interval_seconds)

    def _send(self, post: Post) -> None:
        """Send what waits, once it is certain whose the key is."""
        backoff = Backoff(self._clock, first=2, longest=300, proven=0)
        while not self._sure.is_set() and not self._ask_once():
            self._clock.wait(self._stop, backoff.failed())
        post.run()

    def _run_errands(self, writer: Writer) -> None:
        """Fetch directives, where there is somebody to send mail."""
        with self._store.transaction():
            organization_id = self._store.notes.get("organization_id")
        if self._courier is None or organization_id is None:
            return
        sent = SentMail(self._door.open)
        sender = Sender(
            self._store, writer, organization_id, self._courier, sent, self._clock, self._stop
        )
        self._errands = Errands(
            self._store,
            self._platform,
            sender,
            self._health,
            self._clock,
            self._stop,
            self._wake,
        )
        self._start("errands", self._errand, awaited=False)

    def _errand(self) -> None:
        self._sure.wait()
        if self._errands is not None:
            self._errands.run()

    def _mailbox_side(self) -> None:
        """Open the mailbox, then watch its folders."""
        # With FleetPrompt's clock the beginning is certain; without it, it is found all the same.
        self._asked.wait()
        watched = self._open_mailbox()
        self._known.wait()
        if watched is None or self._writer is None:
            return
        reader = reader_for(
            self._store,
            self._writer,
            self._clock,
            Pace(self._clock, self._profile.limits.max_messages_per_minute),
            self._stop,
            with_body=self._may_send_bodies(),
        )
        self._watch(watched, reader)
        while may_come(self._profile.mailbox) and not self._clock.wait(self._stop, _LIST_AGAIN):
            watched = self._open_mailbox()
            if watched is not None:
                self._watch(watched, reader)

    def _watch(self, watched: Sequence[Watched], reader: Reader) -> None:
        """Watch these folders from now on, and no others."""
        names = {one.name for one in watched}
        for name in self._watches.keys() - names:
            self._watches.pop(name).leave()
        self._health.watching(names)
        for one in watched:
            if one.name in self._watches:
                continue
            logger.info("watching", extra={"folder": one.name})
            self._watches[one.name] = watch = Watch(
                one,
                self._door,
                reader,
                self._store,
                self._health,
                self._clock,
                self._stop,
                poll_seconds=self._profile.mailbox.poll_interval_seconds,
                told=self._wake.set,
            )
            self._start(f"watch {one.name}", watch.run)

    def _ask_once(self) -> bool:
        try:
            me = self._platform.me()
        except EdgeError as error:
            if not self._stop.is_set():
                self._health.bad("platform", error)
            return False
        self._check(me)
        self._ahead = me.ahead
        self._sure.set()
        self._health.good("platform")
        return True

    def _check(self, me: Me) -> None:
        """The key must be of the organization that profile and store belong to."""
        wanted = self._profile.fleetprompt.organization_id
        with self._store.transaction():
            kept = self._store.notes.get("organization_id")
            if any(one not in (None, me.organization_id) for one in (wanted, kept)):
                raise PlatformAuthError(
                    "The key belongs to another organization than this profile.",
                    remedy="Use a key of the right organization, or a new profile with a state_dir of "
                    "its own.",
                )
            if me.connector_id not in (None, self._profile.connector_id):
                raise PlatformAuthError(
                    "The key was made for another connector.",
                    remedy=f"Make one for connector {self._profile.connector_id}.",
                )
            self._store.notes.put("organization_id", me.organization_id)
            self._store.notes.put("tenant", me.tenant)

    def _open_mailbox(self) -> Sequence[Watched] | None:
        backoff = Backoff(self._clock, first=2, longest=60, proven=0)
        while not self._stop.is_set():
            try:
                session = self._door.open()
                try:
                    watched = watched_folders(self._profile.mailbox, session.folders())
                    begin(
                        session,
                        self._store,
                        self._clock,
                        watched,
                        mailbox=self._profile.mailbox,
                        ahead=self._ahead,
                    )
                finally:
                    session.close()
            except StoreError:
                raise
            except EdgeError as error:
                self._health.bad("bridge", error)
                self._clock.wait(self._stop, backoff.failed())
            else:
                self._health.good("bridge")
                if not self._watches:
                    logger.info("mailbox open", extra={"folders": [one.name for one in watched]})
                return watched
        return None

    def _tenant(self) -> str | None:
        """The tenant's name, from an earlier run or as soon as FleetPrompt says it."""
        backoff = Backoff(self._clock, first=2, longest=900, proven=0)
        while not self._stop.is_set():
            with self._store.transaction():
                tenant = self._store.notes.get("tenant")
            if tenant is not None:
                return tenant
            if not self._ask_once():
                self._clock.wait(self._stop, backoff.failed())
        return None

    def _may_send_bodies(self) -> bool:
        privacy = self._profile.privacy
        with self._store.transaction():
            kept = self._store.notes.get("organization_id")
        return privacy.send_body and kept is not None and privacy.send_body_to_organization == kept

    def _start(self, name: str, work: Callable[[], None], *, awaited: bool = True) -> None:
        """A thread whose failure ends the connector rather than leave it half at work."""

        def run() -> None:
            try:
                work()
            except EdgeError as error:
                self._failure = self._failure or error
                logger.error(error.message, extra={"code": error.code, "remedy": error.remedy})
                self.stop()
            except BaseException as error:  # noqa: BLE001 - raised by run()
                self._failure = self._failure or error
                logger.exception("a thread failed", extra={"work": name})
                self.stop()

        thread = Thread(target=run, name=name, daemon=True)
        if awaited:
            self._threads.append(thread)
        thread.start()

    def _end(self) -> None:
        self.stop()
        for watch in list(self._watches.values()):
            watch.hang_up()
        self._platform.close()
        until = self._clock.monotonic() + _END_SECONDS
        for thread in list(self._threads):
            thread.join(max(0.0, until - self._clock.monotonic()))
        if self._errands is not None:
            # A poll that waits is left alone; it touches nothing once it is time to stop.
            self._errands.at_rest.wait(max(0.0, until - self._clock.monotonic()))
        logger.info("stopped")
