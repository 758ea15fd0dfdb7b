"""Frame interpolation, ↑F of Make-A-Video: more frames between, before and after those that are there.

Here belong masked-frame conditioning (known frames, zeros where masked, and one binary channel that says "this frame is
masked", joined to the input of an inflated decoder), its windows and sampler, the decoder of new frames that sees their
neighbours, and the train steps of both. ``inflate`` never imports this package by statement: ``inflate.stages``
resolves it by name when a cascade asks for it.
"""
