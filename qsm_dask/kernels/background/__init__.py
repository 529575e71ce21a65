"""The local field from the total field."""
