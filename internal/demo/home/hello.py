"""A web page on a port of its own: http://3000-<sandbox>.localhost:<port>/

    python3 hello.py
"""

import os
from http.server import BaseHTTPRequestHandler, HTTPServer

visits = 0  # in memory: it is still there after a sleep


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        global visits
        visits += 1
        body = f"Hello, visitor {visits}.\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


HTTPServer((os.environ["SANDBOX_IP"], 3000), Hello).serve_forever()
