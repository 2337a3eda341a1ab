"""``python -m reproductions.imagenet``, and with ``--evaluate-only`` tests of weights."""

import sys

from reproductions.imagenet.table import main

sys.exit(main(sys.argv[1:]))
