"""One module a claim: `python -m benchmarks.NAME` prints a table, with `--json` ends in one line of JSON."""
