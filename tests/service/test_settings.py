import pytest

from geo4d.errors import InputError
from geo4d.service.settings import TOKEN_VARIABLE, ServiceSettings, is_loopback, read_token

TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_token(monkeypatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_alone_needs_no_token(host) -> None:
    assert is_loopback(host)
    assert read_token(ServiceSettings(host=host)) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "films.example", "127.0.0.1.example", ""])
def test_an_address_that_others_reach_needs_one(host, monkeypatch) -> None:
    with pytest.raises(ValueError, match="--token-file"):
        read_token(ServiceSettings(host=host))
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert read_token(ServiceSettings(host=host)) == TOKEN


def test_the_file_wins_and_its_line_ending_does_not_count(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "another token of 20 letters")
    (tmp_path / "token").write_text(TOKEN + "\r\n")
    assert read_token(ServiceSettings(token_file=tmp_path / "token")) == TOKEN


@pytest.mark.parametrize("text", ["short", TOKEN + "ü", TOKEN + "\nline"])
def test_a_token_that_is_none(text, tmp_path) -> None:
    (tmp_path / "token").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="16"):
        read_token(ServiceSettings(token_file=tmp_path / "token"))


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot read the token"):
        read_token(ServiceSettings(token_file=tmp_path / "none"))


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"queue": 0}, {"uploads": -1}, {"max_mb": 0}, {"keep_h": float("nan")}, {"port": 70000}],
)
def test_nonsense(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ServiceSettings(**wrong)
