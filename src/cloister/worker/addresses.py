"""Which addresses a worker may connect to for others: public ones, and those that its operator names.

What is connected to is chosen by requesters, data owners and apps, so a worker that took any address would be their hand
inside its own network. All addresses of a name are checked, and one that was checked is the one that is connected to.
"""

from __future__ import annotations

import ipaddress
import socket

from cloister.errors import Denied, InputError, NotFound, UnavailableError, quoted

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is public in IPv6 (RFC 4291); the rest is scoped, obsolete or not given to anyone."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NO_SUCH_HOST = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Addresses:
    """Looks names up. ``allowed``: networks that are not public and may be asked all the same. Safe to use from several
    threads.
    """

    def __init__(self, allowed: tuple[Network, ...] = ()) -> None:
        self._allowed = tuple(allowed)

    def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """The addresses of ``host``, best first; all may be asked, so a name cannot hide one.

        Raises:
            Denied: one of them is not public. NotFound: no such host. InputError: no host name. UnavailableError: the
            lookup failed.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno in _NO_SUCH_HOST:
                raise NotFound(f"host {quoted(host)} is unknown") from error
            raise UnavailableError(f"host {quoted(host)} is unknown") from error
        except UnicodeError as error:
            raise InputError(f"host {quoted(host)} is not a name") from error
        except OSError as error:
            raise UnavailableError(f"host {quoted(host)} is unknown") from error
        addresses = [ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found]
        for address in addresses:
            if not self._may_ask(address):
                raise Denied(f"{quoted(host)} is at {address}, which is not a public address", code="private-address")
        if not addresses:
            raise UnavailableError(f"host {quoted(host)} has no address")
        return tuple(dict.fromkeys(str(address) for address in addresses))

    def _may_ask(self, address: IpAddress) -> bool:
        real = _real_address(address)
        if any(real.version == network.version and real in network for network in self._allowed):
            return True
        if isinstance(real, ipaddress.IPv6Address) and real not in _GLOBAL_UNICAST:
            return False
        return real.is_global and not real.is_multicast


def _real_address(address: IpAddress) -> IpAddress:
    """The IPv4 address that an IPv6 address stands for on the way (RFC 4291, 6052, 3056), or the address itself."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
