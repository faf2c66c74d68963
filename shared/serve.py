"""Runs an API: `python -m shared.serve services.pool.main:create_app --host 127.0.0.1 --port 8401`.

Uvicorn, with a bound on the head of a request: its parser keeps whatever comes before the body, and tiny headers become twenty times
their bytes in memory, before any key is asked for.
"""

import argparse
import http

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 << 10
_TOO_LARGE = http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
_SENTENCE = f"The address and the headers of a request have more than {MAX_HEAD_BYTES:,} bytes together; send less."


class BoundedHead(HttpToolsProtocol):
    """A connection that ends, with 431, when the head of a request gets too long. The piece in which it begins is not counted."""

    _is_in_head = _began = False
    _head_bytes = 0

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._is_in_head = self._began = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Its head is over."""
        self._is_in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """A piece of a request, or of several."""
        self._began = False
        super().data_received(data)
        if self._is_in_head and not self._began and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.write(_refusal())
                self.transport.close()


def _refusal() -> bytes:
    body = f'{{"error": {{"code": "head_too_large", "message": "{_SENTENCE}", "details": []}}}}'.encode()
    head = f"HTTP/1.1 {_TOO_LARGE.value} {_TOO_LARGE.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def main() -> None:
    """Serve until a signal says otherwise."""
    parser = argparse.ArgumentParser(prog="python -m shared.serve")
    parser.add_argument("app", help="module:factory")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    asked = parser.parse_args()
    uvicorn.run(
        asked.app,
        factory=True,
        host=asked.host,
        port=asked.port,
        http=BoundedHead,
        access_log=False,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
