"""The rows of raysys in SQL: one module a noun, one transaction a function; no rules are here."""
