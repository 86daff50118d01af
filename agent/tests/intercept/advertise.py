"""Plays a router (RFC 4861, section 4.2) that has hosts make themselves addresses in a network of /64, beneath tags of VLAN 0:
advertise.py NETWORK [TYPE...]"""

import socket
import struct
import sys

network = socket.inet_pton(socket.AF_INET6, sys.argv[1])
tags = b"".join(struct.pack("!HH", int(tag, 16), 0) for tag in sys.argv[2:])
source, everybody = (socket.inet_pton(socket.AF_INET6, address) for address in ("fe80::1:2:3:4", "ff02::1"))
DAY = 24 * 60 * 60


def advertisement(checksum):
    """With one option, Prefix Information (section 4.6.2): on the link, and to be used for addresses."""
    head = struct.pack("!BBHBBHII", 134, 0, checksum, 64, 0, 0, 0, 0)
    return head + struct.pack("!BBBBIII", 3, 4, 64, 0xC0, DAY, DAY, 0) + network


length = len(advertisement(0))
summed = source + everybody + struct.pack("!II", length, socket.IPPROTO_ICMPV6) + advertisement(0)
total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
total = (total & 0xFFFF) + (total >> 16)
total = (total & 0xFFFF) + (total >> 16)
header = struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_ICMPV6, 255) + source + everybody
own = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
own.bind(("eth0", 0))
hardware = bytes.fromhex("333300000001") + own.getsockname()[4]
own.send(hardware + tags + struct.pack("!H", 0x86DD) + header + advertisement(~total & 0xFFFF))
