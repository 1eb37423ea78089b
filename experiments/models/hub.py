"""Tests in seconds if the Hugging Face hub can be reached, instead of after minutes of retries."""

import os
import socket
from urllib.parse import urlsplit

CONNECT_SECONDS = 3.0


def unreachable() -> str | None:
    """Returns why the hub cannot be reached, or None. Behind a proxy only the request itself can tell: None."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return None
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        with socket.create_connection((endpoint.hostname, endpoint.port or 443), timeout=CONNECT_SECONDS):
            return None
    except OSError as error:
        return f"{endpoint.hostname} does not answer ({error})"
