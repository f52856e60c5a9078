"""Which addresses a request to a stranger's URL may reach: the public Internet, and what an operator lists beside it.

``ipaddress`` is not enough: ``is_global`` lets NAT64, mapped and 6to4 forms pass, each by another version of Python.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: What is not public in IPv4 (IANA's special-purpose registry, multicast, and what clouds keep for themselves).
NOT_PUBLIC_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; Linux takes it for the machine itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers; the metadata of Alibaba's cloud
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host, under a public address
        "169.254.0.0/16",  # link-local; the metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; the metadata of Oracle's cloud
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

#: All that is public in IPv6 lies in here. Mapped, compatible, translated, NAT64, unique local, link-local, site-local,
#: loopback, segment routing and multicast forms do not.
PUBLIC_V6 = IPv6Network("2000::/3")
#: What in there is not.
NOT_PUBLIC_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which holds an address of IPv4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
#: Where the address of IPv4 begins that a tunnel (ISATAP, RFC 5214) puts into the last half of any prefix.
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})

#: What a listed name does not open, only a listed network does: nobody means these by a name.
NEVER_BY_NAME: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "192.0.0.192/32",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::/96",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
_LOOPBACK_V6 = IPv6Address("::1")
_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")


def public(address: Address) -> bool:
    """Whether an address belongs to the public Internet and stands for nothing but itself."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_V4)
    if address.scope_id is not None or address not in PUBLIC_V6:
        return False
    if any(address in network for network in NOT_PUBLIC_V6):
        return False
    tail = int(address) & (2**64 - 1)
    return tail >> 32 not in _ISATAP or public(IPv4Address(tail & (2**32 - 1)))


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be called. Without anything listed: the public Internet, by HTTPS.

    ``names`` are hosts, ``*.`` before one stands for all below it: a listed host may have a private address. Addresses
    in ``networks`` may be called whatever they are. Both may be called by plain HTTP and on any port. What is
    ``barred`` may not be called, though it be public: an operator's own networks.
    """

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    barred: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """From a setting: names, addresses and networks (CIDR) with commas between, ``!`` before a barred network.

        Raises ``ValueError``, which names the entry at fault.
        """
        names: set[str] = set()
        networks: list[Network] = []
        barred: list[Network] = []
        for entry in (part.strip() for part in text.split(",")):
            if not entry:
                continue
            network = _network(entry.removeprefix("!"))
            if network is not None:
                (barred if entry.startswith("!") else networks).append(network)
            elif _NAME.fullmatch(entry.lower()) and not numeric(entry):
                names.add(entry.lower())
            else:
                raise ValueError(f"{entry} is neither a host's name, nor an address, nor a network")
        return cls(frozenset(names), tuple(networks), tuple(barred))

    def lists(self, host: str) -> bool:
        """Whether a host stands on the list, by its name or by a literal address in a listed network."""
        address = literal(host)
        if address is not None:
            return self._listed(address)
        name = host.lower()
        if name in self.names:
            return True
        return any("*." + name[at + 1 :] in self.names for at, sign in enumerate(name) if sign == ".")

    def admits(self, address: Address, *, named: bool = False) -> bool:
        """Whether an address may be called; ``named``: the host that it was found for stands on the list."""
        if self._listed(address):
            return True
        if _within(address, self.barred):
            return False
        if named and (address == _LOOPBACK_V6 or not _within(address, NEVER_BY_NAME)):
            return isinstance(address, IPv4Address) or address.scope_id is None
        return public(address)

    def _listed(self, address: Address) -> bool:
        scoped = isinstance(address, IPv6Address) and address.scope_id is not None
        return not scoped and _within(address, self.networks)


def literal(host: str) -> Address | None:
    """The address that a host is, brackets or not; None for a name, and for forms that only some read as one."""
    try:
        return ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def numeric(host: str) -> bool:
    """Whether a host without brackets ends in a number, as the URL standard has it: such a host is an address of IPv4
    or nothing, never a name."""
    last = host.removesuffix(".").rpartition(".")[2].lower()
    return last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last) is not None


def _network(entry: str) -> Network | None:
    try:
        return ip_network(entry)
    except ValueError:
        return None


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)
