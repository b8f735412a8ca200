"""``python -m hivectl`` is ``hivectl``."""

from hivectl.main import main

main()
