"""Exit with 0 if the daemon or the sidecar in this container is ready to serve: the health check of the image."""

import os
import ssl
import sys
import urllib.request

DAEMON = os.environ.get("COORDINATOR_PORT") or "7420"
SIDECAR = (os.environ.get("COORDINATOR_LISTEN") or "127.0.0.1:7421").rpartition(":")[2]
UNVERIFIED = ssl._create_unverified_context()  # noqa: S323, SLF001 - the certificate has the name of the Service, and this is loopback

for address in (f"http://127.0.0.1:{DAEMON}", f"https://127.0.0.1:{DAEMON}", f"http://127.0.0.1:{SIDECAR}"):
    try:
        urllib.request.urlopen(f"{address}/readyz", timeout=2, context=UNVERIFIED).close()  # noqa: S310 - a fixed scheme
    except (OSError, ValueError):
        continue
    sys.exit(0)
sys.exit(1)
