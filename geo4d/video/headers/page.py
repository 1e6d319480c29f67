"""One picture of a file, as its header states it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """One picture of a file.

    Attributes:
        stored: (height, width) of the rows and columns in the file.
        orientation: 1..8 as in EXIF; how the stored picture is turned to be displayed.
        deep: more than 8 bits a channel, so that its values need a range.
        place: of the page in a TIFF: the offset of its directory.
    """

    stored: tuple[int, int]
    orientation: int = 1
    deep: bool = False
    place: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as displayed."""
        return (self.stored[1], self.stored[0]) if self.orientation >= 5 else self.stored
