"""Says to everybody on the link to have an address, unasked, by ARP (RFC 826) or as a neighbor (RFC 4861, section 4.4), beneath
tags of VLAN 0: claim.py ADDRESS [TYPE...]"""

import socket
import struct
import sys

own = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
own.bind(("eth0", 0))
hardware = own.getsockname()[4]
tags = b"".join(struct.pack("!HH", int(tag, 16), 0) for tag in sys.argv[2:])


def announcement(address):
    """A request of ARP for one's own address, which all take the sender's of."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return b"\xff" * 6, 0x0806, head + hardware + address + bytes(6) + address


def advertisement(address):
    """Of a neighbor who overrides what is known, with its link-layer address (section 4.6.1)."""
    everybody = socket.inet_pton(socket.AF_INET6, "ff02::1")
    message = lambda checksum: struct.pack("!BBHI", 136, 0, checksum, 1 << 29) + address + b"\x02\x01" + hardware
    summed = address + everybody + struct.pack("!II", 32, socket.IPPROTO_ICMPV6) + message(0)
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    header = struct.pack("!IHBB", 6 << 28, 32, socket.IPPROTO_ICMPV6, 255) + address + everybody
    return bytes.fromhex("333300000001"), 0x86DD, header + message(~total & 0xFFFF)


if ":" in sys.argv[1]:
    to, kind, packet = advertisement(socket.inet_pton(socket.AF_INET6, sys.argv[1]))
else:
    to, kind, packet = announcement(socket.inet_aton(sys.argv[1]))
own.send(to + hardware + tags + struct.pack("!H", kind) + packet)
