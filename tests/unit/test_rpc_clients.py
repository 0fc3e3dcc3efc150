"""Who a request comes from."""

from __future__ import annotations

import pytest

from regard.rpc.clients import address_of, client_of


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.7:53124", "ipv4:10.0.0.7"),
        ("ipv6:[::1]:53124", "ipv6:[::1]"),
        ("ipv6:%5B::1%5D:53124", "ipv6:[::1]"),
        ("unix:/run/regard.sock", "unix:/run/regard.sock"),
    ],
)
def test_connections_from_one_address_are_one_client(peer: str, address: str) -> None:
    """The port, which every connection has another of, is left out."""
    assert address_of(peer) == address


def test_an_id_comes_before_credentials_and_those_before_the_address() -> None:
    """What is named by the one is the same client from wherever, whatever else it sends."""
    identified = {client_of([("x-client-id", "team-a"), ("authorization", token)], peer) for token, peer in PAIRS}
    authorized = {client_of([("authorization", token)], "ipv4:10.0.0.7:1") for token, _ in PAIRS}
    addressed = {client_of([("user-agent", token)], peer) for token, peer in PAIRS}
    assert [len(identified), len(authorized), len(addressed)] == [1, 2, 2]


def test_an_id_is_not_taken_for_credentials() -> None:
    """A client that calls itself by another's token is not that other."""
    assert client_of([("x-client-id", "secret")], "") != client_of([("authorization", "secret")], "")


def test_a_name_is_short_and_gives_nothing_away() -> None:
    """However long the credentials are, the name is of one length and holds none of them."""
    name = client_of([("authorization", "Bearer " + "secret" * 1000)], "ipv4:10.0.0.7:1")
    assert len(name) == 24 and "secret" not in name


PAIRS = [("Bearer one", "ipv4:10.0.0.7:53124"), ("Bearer two", "ipv4:10.0.0.8:53124")]
