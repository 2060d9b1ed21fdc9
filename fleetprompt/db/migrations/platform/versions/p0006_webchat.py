"""Public site keys of chat widgets."""

from fleetprompt.db.migrations import op
from fleetprompt.db.migrations.platform.versions.p0001_platform import ROW_SECURITY

revision = "p0006"
down_revision = "p0005"

# Which tenant and site a public key names; the one thing that a widget's request is placed by.
TABLE = """
CREATE TABLE fleetprompt.webchat_site_keys (
    site_key      text COLLATE "C" PRIMARY KEY CHECK (site_key LIKE 'fp_pub_%'),
    tenant_schema text NOT NULL DEFAULT current_user,
    site_id       uuid NOT NULL
);
CREATE INDEX webchat_site_keys_tenant ON fleetprompt.webchat_site_keys (tenant_schema);
"""


def upgrade() -> None:
    """Create the index table; each tenant writes its own rows."""
    op.execute(TABLE)
    op.execute(ROW_SECURITY.format(table="webchat_site_keys"))
