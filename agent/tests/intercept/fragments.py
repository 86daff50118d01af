"""Sends a datagram in two fragments of IPv6 (RFC 8200, section 4.5) and says if it is answered. Of 60, destination options, the
first fragment ends before the header that it announces, and nobody who reads one fragment alone knows of UDP; of 17, UDP, it has
UDP's: fragments.py TARGET PORT 60|17"""

import random
import socket
import struct
import sys

target, port, begins_with = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
UDP, FRAGMENT, OPTIONS = socket.IPPROTO_UDP, 44, 60

answers = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
answers.connect((target, port))
answers.settimeout(0.3)
source, own_port = answers.getsockname()[:2]
addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
message = b"?" * 8
length = 8 + len(message)


def datagram(checksum):
    return struct.pack("!HHHH", own_port, port, length, checksum) + message


summed = addresses + struct.pack("!II", length, UDP) + datagram(0)
total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
total = (total & 0xFFFF) + (total >> 16)
total = (total & 0xFFFF) + (total >> 16)
whole = datagram(~total & 0xFFFF)
if begins_with == OPTIONS:
    # Twice one option, PadN, of six bytes (section 4.2). Linux refuses a first fragment whose last header is UDP's and not there.
    for before in UDP, OPTIONS:
        whole = struct.pack("!BBBBI", before, 0, 1, 4, 0) + whole

own = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
own.bind(("eth0", 0))
hardware = b"\xff" * 6 + own.getsockname()[4] + struct.pack("!H", 0x86DD)
identification = random.getrandbits(32)


def send(offset, more, part):
    fragment = struct.pack("!BBHI", begins_with, 0, offset | more, identification) + part
    own.send(hardware + struct.pack("!IHBB", 6 << 28, len(fragment), FRAGMENT, 64) + addresses + fragment)


send(0, 1, whole[:8])
send(8, 0, whole[8:])
try:
    print(answers.recv(64).decode(), end="")
except (TimeoutError, ConnectionRefusedError):
    print("nobody", end="")
