"""Super-resolution: SR_l^t, spatiotemporal, and SR_h, spatial with one noise for all frames, of Make-A-Video.

Here belong the low-resolution conditioning with its noise augmentation, the two stages, and their train steps.
``inflate`` never imports this package by statement: ``inflate.stages`` resolves it by name when a cascade asks for it.
"""
