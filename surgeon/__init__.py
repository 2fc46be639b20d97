"""surgeon: structured surgery on transformer models."""
