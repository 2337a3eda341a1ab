"""``python -m reproductions.imagenet``; with ``--evaluate-only``, the evaluation of given weights."""

import sys

from reproductions.imagenet.table import main

sys.exit(main(sys.argv[1:]))
