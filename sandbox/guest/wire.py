"""The Jupyter wire protocol (version 5.4) as a kernel needs it: signed multipart messages.

A kernel-side `jupyter_client.Session` does the same with configuration, tracing and three packers; a
forked kernel needs none of them, and this is most of what a cell's round trip costs there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from datetime import UTC, datetime
from typing import Any

import zmq

DELIMITER = b"<IDS|MSG>"
PROTOCOL_VERSION = "5.4"
Message = dict[str, Any]


class BadMessage(Exception):
    """A message that is not signed with this kernel's key, or is no Jupyter message at all."""


class Wire:
    """Packs, signs, sends and reads the messages of one kernel."""

    def __init__(self, key: bytes) -> None:
        self._hmac = hmac.new(key, digestmod=hashlib.sha256)
        self._session = os.urandom(16).hex()
        self._count = 0

    def _sign(self, parts: list[bytes]) -> bytes:
        signer = self._hmac.copy()
        for part in parts:
            signer.update(part)
        return signer.hexdigest().encode()

    def send(
        self,
        socket: zmq.Socket[bytes],
        kind: str,
        content: Message,
        parent: Message | None = None,
        *,
        route: list[bytes] | None = None,
        metadata: Message | None = None,
    ) -> None:
        """Send one message of type ``kind`` as an answer to the message whose header is ``parent``."""
        self._count += 1
        header = {
            "msg_id": f"{self._session}_{self._count}",
            "session": self._session,
            "username": "guest",
            "date": datetime.now(UTC).isoformat(),
            "msg_type": kind,
            "version": PROTOCOL_VERSION,
        }
        # json.dumps escapes every non-ASCII character, lone surrogates among them: the frames are always valid.
        parts = [json.dumps(part).encode("ascii") for part in (header, parent or {}, metadata or {}, content)]
        socket.send_multipart([*(route or [kind.encode()]), DELIMITER, self._sign(parts), *parts])

    def receive(self, socket: zmq.Socket[bytes]) -> tuple[list[bytes], Message]:
        """Read one message: the routing identities to answer to, and the message.

        Raises:
            BadMessage: the frames are malformed or wrongly signed.
        """
        frames = socket.recv_multipart()
        try:
            split = frames.index(DELIMITER)
            signature, parts = frames[split + 1], frames[split + 2 : split + 6]
            if len(parts) != 4 or not hmac.compare_digest(signature, self._sign(parts)):
                raise BadMessage("wrong signature")
            header, parent, metadata, content = (json.loads(part) for part in parts)
        except (ValueError, IndexError) as error:
            raise BadMessage(str(error)) from error
        message = {"header": header, "parent_header": parent, "metadata": metadata, "content": content}
        return frames[:split], message
