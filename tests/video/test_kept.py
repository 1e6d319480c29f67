import numpy as np
import pytest

from geo4d.video.io import Video
from geo4d.video.kept import KeptPictures
from tests.video.clips import encode, pictures

SIZES = ((12, 16), (20, 30))


def test_what_is_kept_is_what_the_clip_gives(tmp_path):
    path = encode(tmp_path / "clip.mp4", pictures(9))
    with Video(path) as clip:
        plain = {size: [frame.clone() for frame in clip.frames(size)] for size in (*SIZES, (24, 32))}
    (tmp_path / "kept").mkdir()
    with Video(path) as clip:
        kept = KeptPictures(tmp_path / "kept", SIZES, clip.num_frames)
        assert not kept.complete
        on_the_way = [frame.clone() for frame in clip.keep_on_the_way(kept, (24, 32))]
        assert all(a.equal(b) for a, b in zip(on_the_way, plain[24, 32], strict=True))
        assert kept.complete
        assert sum(path.stat().st_size for path in (tmp_path / "kept").iterdir()) == kept.num_bytes(SIZES, 9)
        clip._source.read = None  # from here on the file must not be asked
        clip._cache.clear()
        for size in SIZES:
            assert all(a.equal(b) for a, b in zip(clip.frames(size), plain[size], strict=True))
        assert clip.read([7, 2], SIZES[0])[1].equal(plain[SIZES[0]][2])
    # another process finds them
    again = KeptPictures(tmp_path / "kept", SIZES, 9)
    assert again.complete
    assert not KeptPictures(tmp_path / "kept", SIZES, 10).complete
    again.remove()
    assert not list((tmp_path / "kept").iterdir())


def test_an_interrupted_pass_leaves_nothing_that_counts(tmp_path):
    kept = KeptPictures(tmp_path, SIZES, 3)
    frames = [[np.full((*size, 3), t, np.uint8) for size in SIZES] for t in range(3)]
    for frame in frames[:2]:
        kept.add(frame)
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())
    assert not KeptPictures(tmp_path, SIZES, 3).complete
    again = KeptPictures(tmp_path, SIZES, 3)
    for frame in frames:
        again.add(frame)
    assert again.complete
    assert again.read(1, SIZES[1]).tolist() == frames[1][1].tolist()
    with pytest.raises(ValueError, match="expected 3 frames"):
        again.add(frames[0])
    with pytest.raises(ValueError, match=r"got .* as number 0"):
        KeptPictures(tmp_path, SIZES, 3).add(frames[0][:1])
