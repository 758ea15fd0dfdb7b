"""Sampling, once for every stage: start noise, the network's answer with its guidance, windows, and the loop."""
