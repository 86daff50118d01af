"""Takes an address by forged ARP (RFC 826), sends a datagram from it, and says if that is answered:
forged.py SOURCE TARGET PORT"""

import socket
import struct
import sys

source, target = socket.inet_aton(sys.argv[1]), socket.inet_aton(sys.argv[2])
ARP, IPV4, EVERYTHING = 0x0806, 0x0800, 3

own = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
own.bind(("eth0", EVERYTHING))
own.settimeout(0.3)
hardware = own.getsockname()[4]

# Whoever is asked learns of the one who asks.
question = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1) + hardware + source + bytes(6) + target
datagram = struct.pack("!HHHH", 40000, int(sys.argv[3]), 9, 0) + b"?"


def header(checksum):
    """Of IP (RFC 791, section 3.1)."""
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, socket.IPPROTO_UDP, checksum) + source + target


total = sum(struct.unpack("!10H", header(0)))
total = (total & 0xFFFF) + (total >> 16)
for kind, packet in (ARP, question), (IPV4, header(~total & 0xFFFF) + datagram):
    own.send(b"\xff" * 6 + hardware + struct.pack("!H", kind) + packet)
try:
    while (frame := own.recv(2048))[26:34] != target + source or frame[12:14] != struct.pack("!H", IPV4):
        pass
    print(frame[42:].rstrip(b"\0").decode(), end="")
except TimeoutError:
    print("nobody", end="")
