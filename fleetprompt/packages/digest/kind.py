"""What tells one package's digest from another's."""

from dataclasses import dataclass

from fleetprompt.packages.digest.params import DigestParams, TestParams


@dataclass(frozen=True, slots=True)
class DigestKind:
    """A digest's names and what its directives are given.

    ``transport`` is the ledger's provider and the first word of its signals; ``run``, ``test`` and
    ``settle`` are its directive types, ``key`` the start of their idempotency keys; ``cannot_look``
    tells a person why a message of a way without a memory cannot be looked for.
    """

    transport: str
    key: str
    run: str
    test: str
    settle: str
    digest: type[DigestParams]
    trial: type[TestParams]
    cannot_look: str

    def params_of(self, type_: str, stored: object) -> DigestParams | TestParams:
        """The params of a digest's or a test's directive as they were stored."""
        return (self.digest if type_ == self.run else self.trial).model_validate(stored)
