"""Sends a datagram beneath tags of VLAN 0 (IEEE 802.1Q, priority alone), which a receiver takes off, and says if it is
answered: tagged.py SOURCE TARGET PORT [TYPE...]"""

import socket
import struct
import sys

source, target, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
tags = b"".join(struct.pack("!HH", int(tag, 16), 0) for tag in sys.argv[4:])

answers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
answers.bind((source, 0))
answers.settimeout(0.3)

datagram = struct.pack("!HHHH", answers.getsockname()[1], port, 9, 0) + b"?"
addresses = socket.inet_aton(source) + socket.inet_aton(target)


def header(checksum):
    """Of IP (RFC 791, section 3.1)."""
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, socket.IPPROTO_UDP, checksum) + addresses


total = sum(struct.unpack("!10H", header(0)))
total = (total & 0xFFFF) + (total >> 16)
own = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
own.bind(("eth0", 0))
hardware = b"\xff" * 6 + own.getsockname()[4]
own.send(hardware + tags + struct.pack("!H", 0x0800) + header(~total & 0xFFFF) + datagram)
try:
    print(answers.recv(64).decode(), end="")
except TimeoutError:
    print("nobody", end="")
