import socket

import pytest

from geo4d.errors import OutputError
from geo4d.service.server import listen
from geo4d.service.settings import ServiceSettings
from tests.support.served import free_port


def test_the_address_is_had_before_anything_is_begun() -> None:
    with listen(ServiceSettings(port=0)) as opened:
        host, port = opened.getsockname()
        assert host == "127.0.0.1"
        with (
            pytest.raises(OutputError, match=f"127.0.0.1:{port}.*--port"),
            listen(ServiceSettings(port=port)),
        ):
            pass
        with socket.create_connection((host, port), 5):
            pass
    with listen(ServiceSettings(port=port)):
        pass


def test_other_addresses_of_this_machine_do_not_answer() -> None:
    with listen(ServiceSettings(port=free_port())) as opened, socket.socket() as other:
        other.settimeout(2)
        assert other.connect_ex(("127.0.0.2", opened.getsockname()[1])) != 0


def test_an_address_of_another_machine() -> None:
    with (
        pytest.raises(OutputError, match="--host"),
        listen(ServiceSettings(host="192.0.2.1", port=free_port())),
    ):
        pass
