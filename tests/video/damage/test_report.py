from geo4d.video.damage.report import Damage, broken, early


def test_words_count_bytes() -> None:
    assert early(1) == "the file ends 1 byte early"
    assert early(12) == "the file ends 12 bytes early"
    assert broken(77) == "the structure of the file is broken at byte 77"


def test_without_a_position_the_order_of_what_follows_is_known() -> None:
    assert Damage("x").position is None
