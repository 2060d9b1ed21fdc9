"""How long what is kept, tenant by tenant, and its removal in small batches."""
