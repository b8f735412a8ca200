"""A small web server on a machine, for something to forward."""

from __future__ import annotations

from tests.system.machine import Machine

# It tells systemd when it listens, so that nobody who has started it needs to try.
_SERVER = """
import functools, http.server, os, socket, sys

handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[2])
with http.server.ThreadingHTTPServer((sys.argv[3], int(sys.argv[1])), handler) as server:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(os.environ["NOTIFY_SOCKET"])
        notify.send(b"READY=1")
    server.serve_forever()
"""
_UNIT = """
[Service]
Type=notify
ExecStart=/usr/bin/python3 /srv/server.py {port} /srv/web {address}
[Install]
WantedBy=multi-user.target
"""


def serve(machine: Machine, port: int, text: str, address: str = "127.0.0.1") -> None:
    """Answer with ``text`` at a port of the machine, from now on and after each boot."""
    machine.put("/srv/server.py", _SERVER)
    machine.put("/srv/web/index.html", text)
    machine.put("/etc/systemd/system/web.service", _UNIT.format(port=port, address=address))
    machine.run("systemctl enable --now web")
