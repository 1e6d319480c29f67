"""The reconstruction in the rerun viewer, a program of its own (extra ``rerun``)."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from geo4d.errors import OutputError
from geo4d.export import ExportConfig, save
from geo4d.types import Reconstruction


def view_in_rerun(reconstruction: Reconstruction, *, scene: int = 0) -> None:
    """Open the viewer, and wait until it is closed; the recording lives as long.

    Args:
        scene: number of the scene of a video with shot cuts.
    Raises:
        MissingExtraError: rerun is not installed.
        OutputError: its viewer ended with an error, as it does without a display.
        ValueError: there is no such scene, or there are no poses.
    """
    config = ExportConfig(scene=None if reconstruction.scene is None else scene)
    with TemporaryDirectory(prefix="geo4d_rerun_") as folder:
        (recording,) = save(reconstruction, Path(folder) / "geo4d.rrd", "rrd", config)
        try:
            # It listens for recordings of other programs, without this on every address of the machine.
            command = [sys.executable, "-m", "rerun", "--bind", "127.0.0.1", str(recording)]
            subprocess.run(command, check=True)
        except KeyboardInterrupt:
            return
        except subprocess.CalledProcessError as error:
            raise OutputError(
                f"the rerun viewer ended with code {error.returncode}; without a display, write the recording with "
                "'geo4d export RESULT --format rrd -o FILE.rrd' and open it elsewhere"
            ) from error
