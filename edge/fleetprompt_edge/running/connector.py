"""A whole connector: it opens the mailbox, starts the threads, and ends them all.

1. Ask FleetPrompt whom the key belongs to, once, for the tenant's name and the right time.
2. Open the mailbox and find the folders; what is there now is old (``ingest.baseline``).
3. Once the tenant is known, one thread watches each folder; another one sends, and beats the heart.
Neither waits for the other side's being well: mail is read while FleetPrompt is down, and what waits is
sent while Bridge is.
"""

import uuid
from collections.abc import Callable, Sequence
from threading import Event, Thread

from fleetprompt_edge.backoff import Backoff
from fleetprompt_edge.clock import Clock
from fleetprompt_edge.envelope import Writer
from fleetprompt_edge.errors import EdgeError, PlatformAuthError, StoreError
from fleetprompt_edge.imap.folders import watched_folders
from fleetprompt_edge.imap.session import Session
from fleetprompt_edge.ingest.baseline import begin
from fleetprompt_edge.ingest.pace import Pace
from fleetprompt_edge.ingest.reader import Watched
from fleetprompt_edge.ingest.setup import reader_for
from fleetprompt_edge.log import logger
from fleetprompt_edge.profile import Profile
from fleetprompt_edge.running.door import Door
from fleetprompt_edge.running.health import Health
from fleetprompt_edge.running.post import Heart, Post
from fleetprompt_edge.running.watch import Watch
from fleetprompt_edge.store import Store
from fleetprompt_edge.upload.platform import Me, Platform
from fleetprompt_edge.upload.uploader import Uploader

_END_SECONDS = 4.0  # that the threads have to end


class Connector:
    """One profile's connector, on a store whose lock is held."""

    def __init__(
        self,
        profile: Profile,
        store: Store,
        knock: Callable[[], Session],
        platform: Platform,
        clock: Clock,
    ) -> None:
        self._profile = profile
        self._store = store
        self._platform = platform
        self._clock = clock
        self._stop = Event()
        self._wake = Event()
        self._door = Door(knock, clock)
        self._health = Health(store, clock)
        self._watches: list[Watch] = []
        self._threads: list[Thread] = []
        self._failure: BaseException | None = None

    def stop(self) -> None:
        """Ask it to end; may be called from a signal handler."""
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Until stopped. Raises ``StoreError`` when nothing can be remembered any more, and
        ``PlatformAuthError`` when the key is of another organization than the profile or the store."""
        me = self._ask_once()
        try:
            self._start("mailbox", lambda: self._work(me))
            self._stop.wait()
        finally:
            self._end()
        if self._failure is not None:
            raise self._failure

    def _ask_once(self) -> Me | None:
        try:
            me = self._platform.me()
        except EdgeError as error:
            self._health.bad("platform", error)
            return None
        self._check(me)
        self._health.good("platform")
        return me

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

    def _work(self, me: Me | None) -> None:
        """Open the mailbox, then start the threads that need tenant and folders."""
        watched = self._open_mailbox(me)
        tenant = self._tenant()
        if watched is None or tenant is None:
            return
        writer = Writer(self._profile, tenant)
        self._health.writer = writer
        pace = Pace(self._clock, self._profile.limits.max_messages_per_minute)
        reader = reader_for(
            self._store, writer, self._clock, pace, self._stop, with_body=self._may_send_bodies()
        )
        for one in watched:
            watch = Watch(
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
            self._watches.append(watch)
            self._start(f"watch {one.name}", watch.run)
        uploader = Uploader(self._store, self._platform, self._clock)
        post = Post(uploader, self._health, self._clock, self._stop, self._wake)
        self._start("post", post.run)
        self._beat(Heart(self._store, self._health, writer, self._clock, uuid.uuid4().hex))

    def _open_mailbox(self, me: Me | None) -> Sequence[Watched] | None:
        backoff = Backoff(self._clock, first=2, longest=60, proven=0)
        while not self._stop.is_set():
            try:
                session = self._door.open()
                try:
                    watched = watched_folders(self._profile.mailbox, session.folders())
                    begin(
                        session, self._store, self._clock, watched, ahead=me.ahead if me else None
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
                logger.info("mailbox open", extra={"folders": [one.name for one in watched]})
                return watched
        return None

    def _tenant(self) -> str | None:
        """The tenant's name, from an earlier run or as soon as FleetPrompt says it."""
        backoff = Backoff(self._clock, first=2, longest=60, proven=0)
        while not self._stop.is_set():
            with self._store.transaction():
                tenant = self._store.notes.get("tenant")
            if tenant is not None:
                return tenant
            if self._ask_once() is None:
                self._clock.wait(self._stop, backoff.failed())
        return None

    def _may_send_bodies(self) -> bool:
        privacy = self._profile.privacy
        with self._store.transaction():
            kept = self._store.notes.get("organization_id")
        return privacy.send_body and kept is not None and privacy.send_body_to_organization == kept

    def _beat(self, heart: Heart) -> None:
        while not self._stop.is_set():
            heart.beat()
            self._wake.set()
            self._clock.wait(self._stop, self._profile.health.heartbeat_interval_seconds)

    def _start(self, name: str, work: Callable[[], None]) -> None:
        """A thread whose failure ends the connector rather than leave it half at work."""

        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - told by run()
                self._failure = self._failure or error
                logger.exception("a thread failed", extra={"work": name})
                self.stop()

        thread = Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _end(self) -> None:
        self.stop()
        for watch in list(self._watches):
            watch.hang_up()
        self._platform.close()
        until = self._clock.monotonic() + _END_SECONDS
        for thread in list(self._threads):
            thread.join(max(0.0, until - self._clock.monotonic()))
        logger.info("stopped")
