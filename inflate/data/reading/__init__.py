"""The one reader of videos and pictures, for training, commands and the page: what a player shows, and when."""
