"""Foreign libraries: torch_pruning and, later, others. Each imported only where it is used."""
