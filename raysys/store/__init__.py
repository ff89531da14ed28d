"""The rows of raysys in SQL: one module a noun; each function takes the engine first and is one transaction."""
