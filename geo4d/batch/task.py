"""What a coordinator asks a worker for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """What a worker is asked to do.

    Attributes:
        name: of the clip.
        path: of the video or the folder of pictures.
        output: folder of the result.
        keep_going: a doubtful result is no failure.
        publish: address that gets the result in place of the disk; none if empty.
        owner: of the lock of that address: the batch, whose leases keep its own workers apart.
    """

    name: str
    path: str
    output: str
    keep_going: bool = False
    publish: str = ""
    owner: str = ""
