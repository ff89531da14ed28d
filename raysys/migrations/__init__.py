"""The history of the schema, applied by `raysys.db.migrate`; as it is now: `store.tables`."""
