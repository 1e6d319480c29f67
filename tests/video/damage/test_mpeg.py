from geo4d.video.integrity import find_damage
from tests.support.clips import LENGTH, clip, outcome


def without_one_picture(data, which):
    """A transport stream without the packets of one picture, its counters renumbered as if none were missing."""
    packets = [bytearray(data[k : k + 188]) for k in range(0, len(data), 188)]
    kept, picture, counter = [], -1, None
    for packet in packets:
        if (packet[1] & 0x1F) << 8 | packet[2] == 0x100:
            picture += packet[1] >> 6 & 1
            if picture == which:
                continue
            if counter is None:
                counter = packet[3] & 15
            packet[3] = packet[3] & 0xF0 | counter & 15
            counter += 1
        kept.append(packet)
    return b"".join(kept)


def test_a_picture_missing_from_a_transport_stream_is_told_by_the_times(tmp_path):
    path = clip(tmp_path, "ts")
    data = path.read_bytes()
    assert len(without_one_picture(data, -5)) == len(data)
    path.write_bytes(without_one_picture(data, 20))
    assert find_damage(path, "mpegts", 0x100) is None
    _, damage = outcome(path)
    assert "about 1 pictures are missing" in damage or "picture 20" in damage


def test_a_lost_transport_packet_is_told(tmp_path):
    path = clip(tmp_path, "ts")
    data = path.read_bytes()
    at = len(data) // 188 // 2 * 188
    path.write_bytes(data[:at] + data[at + 188 :])
    frames, damage = outcome(path)
    assert "packets are missing" in damage
    assert 0 < frames < LENGTH
