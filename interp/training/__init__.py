"""Training the networks of this package, as steps of `inflate train`."""
