"""The guard against the network, which nothing else would notice if it broke."""

import socket

import pytest


def test_connecting_to_another_machine_is_refused() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock,
        pytest.raises(RuntimeError, match=r"tried to reach '192\.0\.2\.1'"),
    ):
        sock.connect(("192.0.2.1", 9))


def test_looking_up_another_machine_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"tried to reach 'example\.invalid'"):
        socket.create_connection(("example.invalid", 80))


def test_sending_a_datagram_to_another_machine_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(RuntimeError, match="loopback"):
        sock.sendto(b"", ("192.0.2.1", 9))


def test_loopback_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            peer, _ = server.accept()
            with peer:
                client.sendall(b"frame")
                assert peer.recv(5) == b"frame"


def test_model_hubs_are_offline() -> None:
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE
