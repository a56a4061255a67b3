"""In processes of their own: both change the process that calls them."""

import subprocess
import sys
from pathlib import Path

from gateway.memory import untouched

ROOT = Path(__file__).parents[2]


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_postponed_module_comes_when_it_is_asked_for() -> None:
    said = python(
        "import sys\n"
        "from gateway.memory import postpone\n"
        "postpone('urllib', 'request')\n"
        "import urllib.request, paho.mqtt.client\n"
        "print('http.client' in sys.modules)\n"
        "print(hasattr(urllib.request, 'proxy_bypass'), hasattr(urllib.request, 'nonsense'))\n"
        "print('http.client' in sys.modules, type(sys.modules['urllib.request']).__name__)\n"
    )
    assert said.split() == ["False", "True", "False", "True", "module"]


def test_what_is_there_already_is_left_alone() -> None:
    said = python(
        "import urllib.request\n"
        "before = urllib.request\n"
        "from gateway.memory import postpone\n"
        "postpone('urllib', 'request')\n"
        "print(urllib.request is before)\n"
    )
    assert said == "True\n"


def test_a_settled_process_is_smaller_and_works() -> None:
    said = python(
        "import hashlib, ssl, cryptography.hazmat.primitives.hpke, cbor2\n"
        "from gateway.memory import settle\n"
        "def resident():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return int(next(line for line in lines if line.startswith('VmRSS')).split()[1])\n"
        "before = resident()\n"
        "settle()\n"
        "print(before - resident() > 2000)\n"
        "print(hashlib.sha256(cbor2.dumps([1])).hexdigest()[:4], bool(ssl.create_default_context()))\n"
    )
    assert said.split() == ["True", "ac38", "True"]


def test_what_seldom_work_mapped_is_given_back_again() -> None:
    said = python(
        "import ssl\n"
        "from gateway.memory import settle\n"
        "def resident():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return int(next(line for line in lines if line.startswith('RssFile')).split()[1])\n"
        "give_back = settle()\n"
        "for _ in range(2):\n"
        "    ssl.create_default_context()\n"
        "    before = resident()\n"
        "    give_back()\n"
        "    print(before - resident() > 1000)\n"
    )
    assert said.split() == ["True", "True"]


SMAPS = """\
00400000-00401000 r-xp 00000000 08:02 173521                     /usr/bin/python3.11
Rss:                   4 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
00401000-00403000 r--p 00001000 08:02 173521                     /usr/bin/python3.11
Anonymous:             0 kB
00403000-00404000 r--p 00003000 08:02 173521                     /usr/bin/python3.11
Anonymous:             4 kB
00404000-00405000 rw-p 00004000 08:02 173521                     /usr/bin/python3.11
Anonymous:             0 kB
00500000-00600000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000001000 r--s 00000000 08:02 99                 /usr/lib/gconv/gconv-modules.cache
Anonymous:             0 kB
"""


def test_only_pages_that_are_in_a_file_as_they_are_in_memory_are_given_back() -> None:
    assert untouched(SMAPS) == [(0x400000, 0x401000), (0x401000, 0x403000)]
