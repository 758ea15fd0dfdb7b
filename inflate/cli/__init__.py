"""Typer commands; parsing and printing only."""
