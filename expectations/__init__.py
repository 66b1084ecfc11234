"""Whether data are fit: suites of Great Expectations as JSON, the facts they judge, and the runner."""
