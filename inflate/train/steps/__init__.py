"""The train steps of the bundled family, one module each; ``inflate.train.step.TRAIN_STEPS`` names them."""
