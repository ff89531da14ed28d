"""One module a revision, frozen once it was released."""
