"""Op rules, one family a file; every file here is loaded by the registry in `surgeon.trace.rule`."""
