"""``python -m geo4d`` is the command ``geo4d``; also what torchrun starts several of."""

import logging
import os
import sys

from geo4d.apps.cli import main


def leave(code: int) -> None:
    """End a process of several, when all is written, without the interpreter's own end.

    Threads of torch's process group may still let go of tensors then, which ends one process in a dozen with SIGABRT
    under load, and torchrun calls the run failed. A process alone returns.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    code = main()
    leave(code)
    sys.exit(code)
