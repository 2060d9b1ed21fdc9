"""Sealed values open only where they belong, and nothing shows what they hold."""

import dataclasses
import pickle
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetprompt.ids import new_id
from fleetprompt.vault.cipher import (
    DataKey,
    Sealed,
    SealError,
    WrappedDataKey,
    decrypt,
    encrypt,
    new_data_key,
    rewrap,
    unwrap,
    wrap,
)
from fleetprompt.vault.master_key import MasterKey
from fleetprompt.vault.secret import Secret

TENANT, OTHER_TENANT = new_id(), new_id()
RECORD, OTHER_RECORD = new_id(), new_id()
FIELD = "webhook_url"
MASTER = MasterKey(bytes(range(32)))
NEXT_MASTER = MasterKey(bytes(range(32, 64)))
CANARY = "https://mattermost.example/hooks/canary4f6b1d"
KEY_BYTES = b"\x05data key in clear, 32 bytes ..\x06"

text = st.text(st.characters(exclude_categories=["Cs"]))


def sealed_canary(data_key: DataKey) -> Sealed:
    return encrypt(data_key, Secret(CANARY), tenant=TENANT, record_id=RECORD, field=FIELD)


@given(plaintext=text, field=text, tenant=st.uuids(), record_id=st.uuids())
def test_what_was_sealed_opens_in_its_place(
    plaintext: str, field: str, tenant: UUID, record_id: UUID
) -> None:
    stored = wrap(MASTER, new_data_key(tenant))
    sealed = encrypt(
        unwrap(MASTER, stored, tenant=tenant),
        Secret(plaintext),
        tenant=tenant,
        record_id=record_id,
        field=field,
    )
    opened = decrypt(
        unwrap(MASTER, stored, tenant=tenant),
        sealed,
        tenant=tenant,
        record_id=record_id,
        field=field,
    )
    assert opened.reveal() == plaintext
    assert len(sealed.ciphertext) == len(plaintext.encode()) + 16


@given(
    here=st.tuples(st.sampled_from([RECORD, OTHER_RECORD]), text),
    there=st.tuples(st.sampled_from([RECORD, OTHER_RECORD]), text),
)
def test_t26_a_value_moved_to_another_record_or_field_does_not_open(
    here: tuple[UUID, str], there: tuple[UUID, str]
) -> None:
    data_key = new_data_key(TENANT)
    sealed = encrypt(data_key, Secret(CANARY), tenant=TENANT, record_id=here[0], field=here[1])

    def open_there() -> Secret:
        return decrypt(data_key, sealed, tenant=TENANT, record_id=there[0], field=there[1])

    if here == there:
        assert open_there().reveal() == CANARY
    else:
        with pytest.raises(SealError, match="sealed for another record or field"):
            open_there()


def test_t26_a_value_moved_to_another_tenant_does_not_open() -> None:
    data_key, other_key = new_data_key(TENANT), new_data_key(OTHER_TENANT)
    sealed = sealed_canary(data_key)
    with pytest.raises(SealError, match="is sealed with data key"):
        decrypt(other_key, sealed, tenant=OTHER_TENANT, record_id=RECORD, field=FIELD)
    with pytest.raises(SealError, match="belongs to tenant"):
        decrypt(data_key, sealed, tenant=OTHER_TENANT, record_id=RECORD, field=FIELD)
    # Even when every id in the row is rewritten along with it.
    relabelled = dataclasses.replace(sealed, key_id=other_key.key_id)
    with pytest.raises(SealError, match="does not open"):
        decrypt(other_key, relabelled, tenant=OTHER_TENANT, record_id=RECORD, field=FIELD)


def test_t26_the_same_key_bytes_do_not_open_for_another_tenant_or_key_id() -> None:
    sealed = sealed_canary(DataKey(KEY_BYTES, key_id=TENANT, tenant=TENANT))
    for key_id, tenant in ((TENANT, OTHER_TENANT), (OTHER_TENANT, TENANT)):
        thief = DataKey(KEY_BYTES, key_id=key_id, tenant=tenant)
        moved = dataclasses.replace(sealed, key_id=key_id)
        with pytest.raises(SealError, match="does not open"):
            decrypt(thief, moved, tenant=tenant, record_id=RECORD, field=FIELD)


def test_nothing_is_sealed_with_another_tenants_key() -> None:
    with pytest.raises(SealError, match="belongs to tenant"):
        encrypt(
            new_data_key(TENANT),
            Secret(CANARY),
            tenant=OTHER_TENANT,
            record_id=RECORD,
            field=FIELD,
        )


def test_t26_a_wrapped_key_moved_to_another_tenant_does_not_open() -> None:
    wrapped = wrap(MASTER, new_data_key(TENANT))
    with pytest.raises(SealError, match="does not open for tenant"):
        unwrap(MASTER, wrapped, tenant=OTHER_TENANT)
    other = wrap(MASTER, new_data_key(TENANT))
    swapped = dataclasses.replace(wrapped, nonce=other.nonce, ciphertext=other.ciphertext)
    with pytest.raises(SealError, match="does not open for tenant"):
        unwrap(MASTER, swapped, tenant=TENANT)


@given(position=st.integers(0), flip=st.integers(1, 255), part=st.sampled_from([0, 1]))
def test_one_changed_byte_is_noticed(position: int, flip: int, part: int) -> None:
    def changed(content: bytes) -> bytes:
        at = position % len(content)
        return content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :]

    data_key = new_data_key(TENANT)
    name = ("nonce", "ciphertext")[part]
    sealed = sealed_canary(data_key)
    altered = dataclasses.replace(sealed)
    object.__setattr__(altered, name, changed(getattr(sealed, name)))
    with pytest.raises(SealError):
        decrypt(data_key, altered, tenant=TENANT, record_id=RECORD, field=FIELD)
    wrapped = wrap(MASTER, data_key)
    altered_key = dataclasses.replace(wrapped)
    object.__setattr__(altered_key, name, changed(getattr(wrapped, name)))
    with pytest.raises(SealError):
        unwrap(MASTER, altered_key, tenant=TENANT)


@pytest.mark.parametrize(("nonce", "ciphertext"), [(b"", None), (b"x", None), (None, b"")])
def test_a_cut_value_is_noticed(nonce: bytes | None, ciphertext: bytes | None) -> None:
    data_key = new_data_key(TENANT)
    sealed = sealed_canary(data_key)
    cut = Sealed(
        key_id=sealed.key_id,
        nonce=sealed.nonce if nonce is None else nonce,
        ciphertext=sealed.ciphertext if ciphertext is None else ciphertext,
    )
    with pytest.raises(SealError, match="does not open"):
        decrypt(data_key, cut, tenant=TENANT, record_id=RECORD, field=FIELD)


def test_the_same_secret_never_looks_the_same_twice() -> None:
    data_key = new_data_key(TENANT)
    seen = [sealed_canary(data_key) for _ in range(50)]
    assert len({sealed.nonce for sealed in seen}) == len(seen)
    assert len({sealed.ciphertext for sealed in seen}) == len(seen)


def test_t28_without_the_right_master_key_nothing_opens() -> None:
    wrapped = wrap(MASTER, new_data_key(TENANT))
    with pytest.raises(SealError, match=f"{MASTER.key_id}.*{NEXT_MASTER.key_id} is loaded"):
        unwrap(NEXT_MASTER, wrapped, tenant=TENANT)
    relabelled = dataclasses.replace(wrapped, master_key_id=NEXT_MASTER.key_id)
    with pytest.raises(SealError, match="does not open"):
        unwrap(NEXT_MASTER, relabelled, tenant=TENANT)


@given(done_before_the_kill=st.integers(0, 6))
def test_t27_an_interrupted_rotation_is_run_again(done_before_the_kill: int) -> None:
    data_keys = [new_data_key(TENANT) for _ in range(6)]
    sealed = [sealed_canary(data_key) for data_key in data_keys]
    stored = [wrap(MASTER, data_key) for data_key in data_keys]

    def rotated(wrapped: WrappedDataKey) -> WrappedDataKey:
        return rewrap(wrapped, former=MASTER, current=NEXT_MASTER, tenant=TENANT)

    def opened(wrapped: WrappedDataKey, value: Sealed) -> str:
        master = MASTER if wrapped.master_key_id == MASTER.key_id else NEXT_MASTER
        data_key = unwrap(master, wrapped, tenant=TENANT)
        return decrypt(data_key, value, tenant=TENANT, record_id=RECORD, field=FIELD).reveal()

    for index in range(done_before_the_kill):
        stored[index] = rotated(stored[index])
    assert {opened(*pair) for pair in zip(stored, sealed, strict=True)} == {CANARY}
    again = [rotated(wrapped) for wrapped in stored]
    assert again[:done_before_the_kill] == stored[:done_before_the_kill]
    assert {wrapped.master_key_id for wrapped in again} == {NEXT_MASTER.key_id}
    assert {opened(*pair) for pair in zip(again, sealed, strict=True)} == {CANARY}


def test_a_key_of_neither_master_is_not_rotated() -> None:
    stranger = MasterKey(bytes(range(64, 96)))
    wrapped = wrap(stranger, new_data_key(TENANT))
    with pytest.raises(SealError, match=stranger.key_id):
        rewrap(wrapped, former=MASTER, current=NEXT_MASTER, tenant=TENANT)
    mislabelled = dataclasses.replace(wrapped, master_key_id=NEXT_MASTER.key_id)
    with pytest.raises(SealError, match="does not open"):
        rewrap(mislabelled, former=MASTER, current=NEXT_MASTER, tenant=TENANT)


def test_a_data_key_of_another_length_is_refused() -> None:
    with pytest.raises(SealError, match="has 32 bytes"):
        DataKey(KEY_BYTES[1:], key_id=TENANT, tenant=TENANT)


@pytest.mark.parametrize("show", [repr, str, "{}".format, lambda value: f"{value!r:>80}"])
def test_t25_keys_and_sealed_values_show_ids_only(show: Callable[[Any], str]) -> None:
    data_key = DataKey(KEY_BYTES, key_id=RECORD, tenant=TENANT)
    wrapped = wrap(MASTER, data_key)
    sealed = sealed_canary(data_key)
    for thing in (data_key, wrapped, sealed):
        shown = show(thing)
        assert str(RECORD) in shown
        for hidden in (KEY_BYTES, wrapped.ciphertext, sealed.ciphertext, sealed.nonce):
            assert repr(hidden) not in shown
            assert hidden.hex() not in shown
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(data_key)


def test_t25_a_refusal_carries_no_secret() -> None:
    data_key = DataKey(KEY_BYTES, key_id=RECORD, tenant=TENANT)
    sealed = sealed_canary(data_key)
    with pytest.raises(SealError) as caught:
        decrypt(data_key, sealed, tenant=TENANT, record_id=OTHER_RECORD, field=FIELD)
    carried = repr(caught.value) + caught.value.detail + repr(caught.value.__dict__)
    assert caught.value.__cause__ is None
    for hidden in (CANARY, repr(KEY_BYTES), repr(sealed.ciphertext)):
        assert hidden not in carried
