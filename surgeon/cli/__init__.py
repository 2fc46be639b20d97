"""surgeon.cli."""
