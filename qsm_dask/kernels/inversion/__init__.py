"""Susceptibility from the local field."""
