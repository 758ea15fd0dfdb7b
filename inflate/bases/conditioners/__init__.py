"""One conditioner for each family."""
