"""`python -m csrecon`: the command line, as torchrun starts it."""

import os
import sys

from csrecon.cli import main

try:
    main()
except SystemExit as end:
    if "LOCAL_RANK" not in os.environ:
        raise
    # DistributedDataParallel never releases its process group (torch 2.13). A thread of that group
    # that still runs at interpreter shutdown aborts the process (pytorch#179291).
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
