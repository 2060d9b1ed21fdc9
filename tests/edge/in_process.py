"""The command in this process: as a customer's, without a Python start for each."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import keyring
import keyring.backends.fail
import pytest
from fleetprompt_edge.cli import main
from fleetprompt_edge.toml_text import new_profile
from fleetprompt_edge.vault.file import FileVault, new_key

from tests.edge.connecting import Customer
from tests.edge.dovecot import PASSWORD, USER
from tests.edge.ingesting import CONNECTOR


def command(profile: Path, *arguments: str, given: str = "") -> tuple[int, Any]:
    """Run a command with ``--json``; its exit code and answer."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", io.StringIO(given))
        code = main([*arguments, "--json", "--profile", str(profile)])
    assert PASSWORD not in out.getvalue() + err.getvalue()
    return code, json.loads(out.getvalue())


def without_keyring() -> None:
    """No keyring of the machine that the tests run on."""
    keyring.set_keyring(keyring.backends.fail.Keyring())  # type: ignore[no-untyped-call]


def alone(folder: Path, **options: Any) -> Customer:
    """A customer whose Bridge and platform are down, with an address as its user name."""
    made = Customer(folder, folder / "profile.toml", folder / "state", folder / "keys" / "key")
    folder.mkdir(parents=True)
    new_key(made.key_file)
    values = {
        "connector_id": CONNECTOR,
        "state_dir": str(made.state),
        "fleetprompt.base_url": "http://127.0.0.1:9",
        "bridge.username": USER,
        "bridge.imap.port": 9,
        "secrets.store": "file",
        "secrets.key_file": str(made.key_file),
        **{name.replace("__", "."): value for name, value in options.items()},
    }
    made.profile.write_text(new_profile(values))
    made.profile.chmod(0o600)
    kept = FileVault(made.state, made.key_file)
    kept.put("bridge-password", PASSWORD)
    kept.put("api-key", "canary-key")
    return made
