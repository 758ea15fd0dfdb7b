"""The one reader of videos and pictures, for training, commands and the page: what a player shows, and when."""

PIXELS = 2
"""Raised where the same file comes to give other pixels: what was kept of its old ones is then made anew."""
