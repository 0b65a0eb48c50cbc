"""The Jupyter wire protocol (version 5.4): signed messages of frames. Used at both ends of a session.

`jupyter_client.session.Session` does the same with configuration, tracing, three packers and a parser of dates;
one cell's round trip needs none of them, and what a guest sends should meet as little code as possible.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from datetime import UTC, datetime
from typing import Any

DELIMITER = b"<IDS|MSG>"
PROTOCOL_VERSION = "5.4"
Message = dict[str, Any]


class BadMessage(Exception):
    """A message that is not signed with this kernel's key, or is no Jupyter message at all."""


class Wire:
    """Packs and reads the messages of one kernel, for the side that ``username`` names."""

    def __init__(self, key: bytes, username: str) -> None:
        self._hmac = hmac.new(key, digestmod=hashlib.sha256)
        self._session = os.urandom(16).hex()
        self._username = username
        self._count = 0

    def _sign(self, parts: list[bytes]) -> bytes:
        signer = self._hmac.copy()
        for part in parts:
            signer.update(part)
        return signer.hexdigest().encode()

    def pack(
        self,
        kind: str,
        content: Message,
        parent: Message | None = None,
        *,
        route: list[bytes] | None = None,
        metadata: Message | None = None,
    ) -> tuple[str, list[bytes]]:
        """One message of type ``kind``, as an answer to the message whose header is ``parent``: its id, its frames."""
        self._count += 1
        header = {
            "msg_id": f"{self._session}_{self._count}",
            "session": self._session,
            "username": self._username,
            "date": datetime.now(UTC).isoformat(),
            "msg_type": kind,
            "version": PROTOCOL_VERSION,
        }
        # json.dumps escapes every non-ASCII character, lone surrogates among them: the frames are always valid.
        parts = [json.dumps(part).encode("ascii") for part in (header, parent or {}, metadata or {}, content)]
        return header["msg_id"], [*(route or []), DELIMITER, self._sign(parts), *parts]

    def unpack(self, frames: list[bytes]) -> tuple[list[bytes], Message]:
        """The routing frames of one message, and the message.

        Raises:
            BadMessage: the frames are malformed or wrongly signed.
        """
        try:
            split = frames.index(DELIMITER)
            signature, parts = frames[split + 1], frames[split + 2 : split + 6]
            if len(parts) != 4 or not hmac.compare_digest(signature, self._sign(parts)):
                raise BadMessage("wrong signature")
            header, parent, metadata, content = (json.loads(part) for part in parts)
        except (ValueError, IndexError, RecursionError) as error:
            raise BadMessage(str(error)) from error
        if not isinstance(header, dict) or not isinstance(header.get("msg_type"), str):
            raise BadMessage("a header without a type")
        message = {"header": header, "parent_header": parent, "metadata": metadata, "content": content}
        return frames[:split], message
