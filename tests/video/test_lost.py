from geo4d.video.lost import PacketTime, first_lost


def test_only_a_hole_in_the_times_makes_a_packet_without_a_picture_a_lost_one():
    def packets(*times, discarded=()):
        return [PacketTime(t, t, t in discarded) for t in times]

    every = list(range(0, 100, 10))
    assert first_lost(every, packets(*every), at_end=True) is None
    assert first_lost(every, packets(*every, 35), at_end=True) is None  # hidden reference frame, second field
    holed = [t for t in every if t not in (40, 70)]
    assert first_lost(holed, packets(*every), at_end=True) == 4
    assert (
        first_lost(holed, packets(*holed), at_end=True) is None
    )  # variable rate: nobody had a picture there
    assert first_lost(holed, packets(*every, discarded=(40,)), at_end=True) == 6
    assert first_lost(every[:-1], packets(*every), at_end=True) == 9
    assert first_lost(every[:-1], packets(*every), at_end=False) is None
    assert first_lost(every, packets(-20, -10, *every), at_end=True) is None  # before the first key frame
    assert first_lost([10, None, 30], packets(*every), at_end=True) is None
