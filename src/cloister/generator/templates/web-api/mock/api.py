"""The mock API: `python mock/api.py PORT`. HTTPS on 127.0.0.1, with a certificate for rates.example.org."""

import json
import ssl
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

KEY = "mock-key"
RATES = {("EUR", "JPY"): "163.25", ("EUR", "USD"): "1.0875", ("USD", "EUR"): "0.9195"}


class Api(BaseHTTPRequestHandler):
    """Answers ``GET /v1/rate?from=EUR&to=JPY``."""

    timeout = 10

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        rate = RATES.get((asked.get("from", ""), asked.get("to", "")))
        if self.headers.get("X-Api-Key") != KEY:
            self.answer(401, {"error": "no such key"})
        elif url.path != "/v1/rate" or rate is None:
            self.answer(404, {"error": "no such rate"})
        else:
            self.answer(200, {"rate": rate})

    def answer(self, status: int, document: dict[str, str]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """Speaks TLS, in each connection's own thread: one that says nothing holds up nobody else."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Api)
        self.secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.secure.load_cert_chain(Path(__file__).with_name("server.pem"))

    def finish_request(self, request, client_address) -> None:
        request.settimeout(Api.timeout)
        with suppress(OSError), self.secure.wrap_socket(request, server_side=True) as connection:
            super().finish_request(connection, client_address)


if __name__ == "__main__":
    Server(int(sys.argv[1])).serve_forever()
