"""Which addresses a tool may live at. Every form in which one address stands for another is read, or refused."""

from ipaddress import IPv4Address, IPv6Address, ip_network

Address = IPv4Address | IPv6Address

# Where clouds tell a machine its own keys, and answer for it: refused also where private tools are allowed.
_CLOUDS = (
    "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32", "169.254.0.0/16", "fe80::/10",
    "fd00:ec2::/32", "fd20:ce::/32", "fd00:42::/32", "fd00:c1::/32",
)  # fmt: skip
# What `ipaddress` calls global or private, and yet is nobody's server.
_NOBODY = (
    "0.0.0.0/8", "192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "fec0::/10", "::/96", "2002::/16", "2001::/32",
    "3fff::/20", "5f00::/16",
)  # fmt: skip
_NEVER = tuple(map(ip_network, (*_CLOUDS, *_NOBODY)))
_NAT64 = ip_network("64:ff9b::/96")
_LOOPBACK = IPv6Address("::1")


def allowed(address: Address, private: bool) -> bool:
    """Public addresses; with `private` also this machine and its networks. Never where clouds keep keys."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return allowed(address.ipv4_mapped, private)
        if address in _NAT64:
            # A gateway's way to the public network, and to nothing else.
            return allowed(IPv4Address(int(address) & 0xFFFFFFFF), private=False)
    if address == _LOOPBACK:
        return private
    if address.is_multicast or address.is_unspecified or any(address in network for network in _NEVER):
        return False
    if address.is_loopback or (address.is_private and not address.is_reserved):
        return private
    return address.is_global and not address.is_reserved
