"""``python -m reproductions.finetune``, and with ``train`` or ``predict`` for one's own images."""

import sys

from reproductions.finetune.experiment import main

sys.exit(main())
