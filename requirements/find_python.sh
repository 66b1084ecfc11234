#!/bin/sh
# Print a Python that the locks are kept for: the one given, else the first of the usual names; status 2 with none.
supported='import sys; sys.exit(sys.version_info[:2] != (3, 11))'
for name in ${1:-python3.11 python3 python}; do
  if "$name" -c "$supported" 2>/dev/null; then
    command -v "$name"
    exit 0
  fi
done
echo "env: needs Python 3.11; found none as ${1:-python3.11, python3 or python}; next: install it, or say where it is: make env PYTHON=/path/to/python3.11" >&2
exit 2
