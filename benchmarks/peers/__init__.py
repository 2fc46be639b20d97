"""The jobs of `benchmarks.apply` as other tools do them; each file is run by the Python that has the tool."""
