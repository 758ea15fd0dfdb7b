"""Which videos a path names, with captions and splits, in every layout data sets come in. Nothing is decoded here."""
