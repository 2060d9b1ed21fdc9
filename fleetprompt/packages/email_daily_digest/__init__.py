"""The daily digest by e-mail, to the tenant's active admins."""
