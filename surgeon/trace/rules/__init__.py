"""surgeon.trace/rules."""
