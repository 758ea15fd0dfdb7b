"""Closed forms only: schedules, conversions and weights, each with its source; tested in float64."""
