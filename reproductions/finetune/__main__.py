"""``python -m reproductions.finetune``; with ``train`` or ``predict``, the commands for one's own images."""

import sys

from reproductions.finetune.experiment import main

sys.exit(main())
