"""`python -m dalsegno.cli`."""

import sys

from dalsegno.cli import main

sys.exit(main())
