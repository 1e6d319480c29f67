"""R1 to R6, R18 and R19: what a video can be."""

import json
import os
import re
import struct
import sys
import wave
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.faults import clips
from benchmarks.faults.harness import (
    Ended,
    Outcome,
    Size,
    Tally,
    command,
    forked,
    reconstruct,
    reliability,
    stub_words,
)


def read_all(path: Path, *, allow_partial: bool = False, timeout: float = 60) -> Ended:
    """Every frame of a video in a fork; prints number, size, times and a hash as JSON."""

    def run() -> int:
        import hashlib

        from geo4d.errors import Geo4DError
        from geo4d.video.io import Video

        try:
            with Video(path, allow_partial=allow_partial) as video:
                digest = hashlib.sha256()
                for t in range(video.num_frames):
                    digest.update((video.read([t])[0].numpy() * 255).round().astype(np.uint8).tobytes())
                found = {"frames": video.num_frames, "size": video.size, "times": video.times_s.tolist()}
                print(json.dumps({**found, "sha256": digest.hexdigest()}))
        except (Geo4DError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return getattr(error, "exit_code", 2)
        return 0

    return forked(run, timeout=timeout)


def found(ended: Ended) -> dict:
    return json.loads(ended.out.splitlines()[-1])


def hostile(folder: Path) -> Iterator[tuple[Path, int | None]]:
    """Inputs with the number of frames that a run must report, -1 for "refused as input", None for either."""
    import cv2

    def raw(name: str, data: bytes, wanted: int | None = -1) -> tuple[Path, int | None]:
        (folder / name).write_bytes(data)
        return folder / name, wanted

    rng = np.random.default_rng(0)
    whole = clips.write(folder / "whole.mp4", 24, container_options={"movflags": "faststart"}).read_bytes()
    yield folder / "whole.mp4", 24
    yield raw("empty.mp4", b"")
    yield raw("one.mp4", b"x")
    yield raw("text.mp4", b"hello world\n" * 200)
    yield raw("zeros.mp4", bytes(20_000))
    yield raw("random.mp4", rng.bytes(50_000))
    yield raw("cut.mp4", whole[: int(0.6 * len(whole))])
    yield raw("head.mp4", whole[:40])
    late = clips.write(folder / "late.mp4", 24).read_bytes()
    yield raw("no_index.mp4", late[: late.index(b"moov") - 4])
    flipped = bytearray(whole)
    for at in rng.integers(200, len(whole), 200):
        flipped[at] ^= 16
    yield raw("flipped.mp4", bytes(flipped), None)
    yield raw("garbage_behind.mp4", whole + rng.bytes(5000), None)
    for suffix in clips.CONTAINERS:
        yield clips.write(folder / f"plain.{suffix}", 8), 8
    for count in (1, 2, 15, 16, 17):
        yield clips.write(folder / f"length_{count}.mp4", count), count
    for name, size, pixels in (
        ("odd", (49, 65), "bgr0"), ("ten_bits", (48, 64), "yuv420p10le"), ("grey", (48, 64), "gray"),
        ("alpha", (48, 64), "bgra"), ("deep", (48, 64), "gbrp16le"), ("two_by_two", (2, 2), "bgr0"),
        ("thin", (2, 1200), "bgr0"), ("tall", (1200, 3), "bgr0"),
    ):  # fmt: skip
        yield clips.write(folder / f"{name}.mkv", 6, size=size, codec="ffv1", pixels=pixels), 6
    yield clips.write(folder / "uneven.mp4", 6, times_ms=[0, 40, 80, 500, 540, 3000]), 6
    yield clips.write(folder / "fast.mp4", 8, rate=1000), 8
    black = [np.zeros((48, 64, 3), np.uint8)] * 8
    yield clips.write(folder / "black.mp4", 8, pictures=black), None
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16_000))
    yield folder / "sound.wav", -1
    yield raw("script.mp4", f"ffconcat version 1.0\nfile '{folder / 'whole.mp4'}'\n".encode())
    yield raw("program.mp4", Path(sys.executable).read_bytes()[:5000])
    yield raw("page.mp4", b"<html><script>alert(1)</script></html>" * 20)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
    yield raw("huge.png", header + struct.pack(">II", 100_000, 100_000) + b"\x08\x02\0\0\0" + bytes(4))
    picture = next(clips.frames(1))
    png = cv2.imencode(".png", picture)[1].tobytes()
    yield raw("single.png", png, 1)
    yield raw("cut.png", png[:100])
    yield raw("cut.jpg", cv2.imencode(".jpg", picture)[1].tobytes()[:900])
    for name, sizes, wanted in (("mixed", (48, 48, 32), -1), ("none", (), -1), ("pictures", (48, 48), 2)):
        pictures = folder / name
        pictures.mkdir()
        for t, height in enumerate(sizes):
            cv2.imwrite(str(pictures / f"{t}.png"), picture[:height])
        yield pictures, wanted
    os.mkfifo(folder / "pipe.mp4")
    yield folder / "pipe.mp4", -1
    (folder / "circle.mp4").symlink_to(folder / "circle.mp4")
    yield folder / "circle.mp4", -1
    yield folder / "missing.mp4", -1
    yield Path("/dev/zero"), -1
    yield clips.write(folder / "wide.mkv", 1, size=(9000, 9000), codec="ffv1", pixels="gray",
                      pictures=[np.zeros((9000, 9000, 3), np.uint8)]), -1  # fmt: skip


@reliability(
    "R1", "hostile clips", "every one refused with a documented code, or processed with its frame count"
)
def r1(folder: Path, size: Size) -> Outcome:
    tally, slowest = Tally(), 0.0
    for number, (path, wanted) in enumerate(hostile(folder)):
        output = folder / f"out_{number}"
        ended = reconstruct(path, output, "--no-split-shots", "--keep-going")
        count = json.loads((output / "manifest.json").read_text())["num_frames"] if ended.code == 0 else None
        good = ended.told and (
            wanted is None or (wanted == -1 and ended.code == 3) or (wanted == count and ended.code == 0)
        )
        tally.case(path.name, good, f"wanted {wanted}, got {count} frames, {ended.last}")
        slowest = max(slowest, ended.seconds)
    return tally.outcome(f"slowest {slowest:.1f} s")


@reliability("R2", "cut and zeroed clips", "frames that are missing are always told")
def r2(folder: Path, size: Size) -> Outcome:
    tally = Tally()
    for suffix in clips.CONTAINERS:
        whole = clips.write(folder / f"whole.{suffix}", 24)
        data, want = whole.read_bytes(), found(read_all(whole))
        for number in range(size.cuts):
            rng = np.random.default_rng(number)
            at = int(rng.integers(64, len(data) - 64))
            cut = number % 2 == 0
            broken = data[:at] if cut else data[:at] + bytes(64) + data[at + 64 :]
            path = folder / f"broken.{suffix}"
            path.write_bytes(broken)
            ended = read_all(path)
            name = f"{suffix} {'cut' if cut else 'zeroed'} at {at} of {len(data)}"
            if ended.code == 0:
                tally.case(
                    name,
                    found(ended)["frames"] == want["frames"],
                    f"{found(ended)['frames']} frames, no word",
                )
                continue
            tally.case(name, ended.code == 3 and not ended.hung, ended.last)
            if re.search(r"\d+ of .* frames readable", ended.err):
                partial = read_all(path, allow_partial=True)
                good = partial.code == 0 and 0 < found(partial)["frames"] <= want["frames"]
                tally.case(f"{name}, --allow-partial", good, partial.last)
    return tally.outcome()


@reliability("R3", "bytes of clips and pictures damaged at random", "no crash, no hang, less than 2 GB")
def r3(folder: Path, size: Size) -> Outcome:
    import cv2

    sources = [clips.write(folder / f"source.{suffix}", 12) for suffix in clips.CONTAINERS]
    for suffix in clips.PICTURES:
        path = folder / f"picture.{suffix}"
        cv2.imwrite(str(path), next(clips.frames(1)))
        sources.append(path)
    whole = {path: found(read_all(path)) for path in sources}
    tally, peak, kinds = Tally(), 0, Counter()
    for seed in range(size.seeds):
        source = sources[seed % len(sources)]
        rng = np.random.default_rng(seed)
        path = folder / f"damaged{source.suffix}"
        path.write_bytes(clips.damage(source.read_bytes(), seed // len(sources) % 4, rng))
        ended = read_all(path, timeout=30)
        peak = max(peak, ended.peak_mib)
        good = ended.code in (0, 2, 3) and ended.peak_mib < 2048
        tally.case(f"seed {seed} ({source.name})", good, ended.last)
        if ended.code == 0:
            same = found(ended)["sha256"] == whole[source]["sha256"]
            fewer = found(ended)["frames"] < whole[source]["frames"]
            kinds["unharmed" if same else "fewer frames" if fewer else "changed picture"] += 1
        else:
            kinds["refused"] += 1
    return tally.outcome(f"peak {peak} MiB; {', '.join(f'{n} {kind}' for kind, n in kinds.most_common())}")


@reliability("R4", "variable frame rate", "times within 1 ms of those in the file")
def r4(folder: Path, size: Size) -> Outcome:
    tally = Tally()
    for suffix in ("mp4", "mkv"):
        times = [0, 40, 80, 500, 540, 1000, 1040, 3000]
        path = clips.write(folder / f"uneven.{suffix}", len(times), times_ms=times)
        got = found(read_all(path))["times"]
        error = float(np.abs(np.array(got) - np.array(times) / 1000).max())
        tally.case(suffix, len(got) == len(times) and error <= 1e-3, f"{error:.4f} s")
    return tally.outcome()


@reliability("R5", "turned clips", "bit-identical to the plain clip turned")
def r5(folder: Path, size: Size) -> Outcome:
    plain = clips.write(folder / "plain.mp4", 4)
    tally = Tally()
    for degrees in (90, 180, 270):
        path = folder / f"turned_{degrees}.mp4"
        path.write_bytes(clips.turned(plain.read_bytes(), degrees))

        def run(path: Path = path, degrees: int = degrees) -> int:
            import torch

            from geo4d.video.io import Video

            with Video(plain) as upright, Video(path) as turned:
                want = torch.rot90(upright.read(range(4)), -degrees // 90, (1, 2))
                got = turned.read(range(turned.num_frames))
                print(f"shape {list(got.shape)}")
                return 0 if got.shape == want.shape and bool(torch.equal(got, want)) else 1

        ended = forked(run)
        tally.case(f"{degrees} degrees", ended.code == 0, ended.last)
    return tally.outcome()


@reliability("R6", "lengths of a clip", "every length finishes; frames in are frames out")
def r6(folder: Path, size: Size) -> Outcome:
    tally = Tally()
    for count in size.lengths:
        path = clips.write(folder / f"{count}.mp4", count)
        output = folder / f"out_{count}"
        ended = reconstruct(
            path, output, "--no-split-shots", "--model-option", "length=16", "--model-option", "stride=8"
        )
        got = json.loads((output / "manifest.json").read_text())["num_frames"] if ended.code == 0 else None
        tally.case(f"{count} frames", got == count, f"{got} frames, {ended.last}")
    return tally.outcome()


@reliability(
    "R18",
    "playlists, scripts and patterns under the name of a video",
    "refused; nothing else opened, no socket",
)
def r18(folder: Path, size: Size) -> Outcome:
    secret = clips.write(folder / "secret.mp4", 8)
    texts = {
        "concat.mp4": f"ffconcat version 1.0\nfile '{secret}'\n",
        "relative.mp4": "ffconcat version 1.0\nfile secret.mp4\n",
        "list.mp4": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "stream.mp4": "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
        "dash.mp4": "<?xml version='1.0'?><MPD><Period><BaseURL>file:///etc/passwd</BaseURL></Period></MPD>",
        "session.mp4": "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "picture%03d.png": "",
        "asx.wmv": "<asx><entry><ref href='http://127.0.0.1/'/></entry></asx>",
        "list.gif": "GIF89a#EXTM3U\nhttp://127.0.0.1/\n",
        "live.mp4": "RTSPtextrtsp://127.0.0.1/x",
        "svg.mp4": "<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    }
    tally = Tally()
    for name, text in texts.items():
        path = folder / name
        path.write_text(text)

        def run(path: Path = path) -> int:
            from geo4d.apps import cli

            def watch(event: str, values: tuple) -> None:
                if (event.startswith("socket.") and event != "socket.__new__") or event == "subprocess.Popen":
                    os.write(1, f"WATCHED {event}\n".encode())
                elif event == "open" and isinstance(values[0], str):
                    opened = values[0]
                    if opened.startswith(str(folder)) and opened != str(path) and ".geo4d-run" not in opened:
                        os.write(1, f"WATCHED open {opened}\n".encode())

            sys.addaudithook(watch)
            return cli.main(stub_words(path, folder / "out"))

        ended = forked(run)
        good = ended.code == 3 and ended.told and "WATCHED" not in ended.out
        tally.case(name, good, f"{ended.last} {ended.out[-100:]}")
    return tally.outcome()


@reliability(
    "R19", "sizes and lengths that a header declares", "refused from the header, less than 100 MB more memory"
)
def r19(folder: Path, size: Size) -> Outcome:
    def put(data: bytes, mark: bytes, offset: int, values: bytes) -> bytes:
        at = data.index(mark) + offset
        return data[:at] + values + data[at + len(values) :]

    plain = clips.write(folder / "plain.mp4", 12).read_bytes()
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
    cases = {
        "picture_2_31.png": header + struct.pack(">II", 2**31 - 1, 2**31 - 1) + b"\x08\0\0\0\0" + bytes(4),
        "picture_20000.png": header + struct.pack(">II", 20_000, 20_000) + b"\x08\0\0\0\0" + bytes(4),
        "count.mp4": put(plain, b"stsz", 12, struct.pack(">I", 0xFFFFFFF)),
        "runs.mp4": put(plain, b"stts", 8, struct.pack(">I", 0xFFFFFFF)),
        "no_timescale.mp4": put(plain, b"mdhd", 16, struct.pack(">I", 0)),
        "negative.bmp": b"BM" + bytes(12) + struct.pack("<Iii", 40, -(2**31), -(2**31)) + bytes(40),
    }
    tally, idle = Tally(), forked(lambda: 0).peak_mib
    most = 0
    for name, data in cases.items():
        path = folder / name
        path.write_bytes(data)
        ended = command(*stub_words(path, folder / f"out_{name}"))
        most = max(most, ended.peak_mib - idle)
        good = ended.told and (ended.code == 3 or (ended.code == 0 and name.endswith(".mp4")))
        tally.case(
            name, good and ended.peak_mib - idle < 100, f"{ended.peak_mib - idle} MiB more, {ended.last}"
        )
    return tally.outcome(f"at most {most} MiB more")
