"""What the Mattermost digest's directives are called, and what makes each message one."""

from typing import ClassVar

from fleetprompt.packages.digest import params
from fleetprompt.packages.digest.kind import DigestKind
from fleetprompt.packages.digest.params import SettleParams

RUN = "digest.run"
TEST_POST = "digest.test_post"
SETTLE = "digest.settle"

__all__ = ["KIND", "RUN", "SETTLE", "TEST_POST", "DigestParams", "SettleParams", "TestPostParams"]


class DigestParams(params.DigestParams):
    """One digest, posted to Mattermost."""

    key: ClassVar[str] = "mattermost_post"


class TestPostParams(params.TestParams):
    """One test post."""

    key: ClassVar[str] = "mattermost_test"


KIND = DigestKind(
    transport="mattermost",
    key="digest",
    run=RUN,
    test=TEST_POST,
    settle=SETTLE,
    digest=DigestParams,
    trial=TestPostParams,
    cannot_look=(
        "It was posted through a webhook alone, which cannot look for posts. Look into the channel, "
        "then post it again or give it up."
    ),
)
