"""One training loop, recipes as data: what is trained is a ``TrainStep``, how is a ``Recipe``."""
