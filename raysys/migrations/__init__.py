"""The history of the schema, applied by `raysys.db.migrate`; the schema as it is now is in `raysys.store.tables`."""
