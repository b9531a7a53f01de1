"""A strict WebSocket echo server, by Autobahn's library: what its own test suite calls a testee.

It listens on the sandbox's address. A client chooses by its path what the server does:

    /?fragment=1300     it cuts its messages into frames of that size
    /?takeover=no       it asks the client to compress without context takeover
    /?bits=9            it asks the client to compress with that window
"""

import asyncio
import os
import sys

from autobahn.asyncio.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept


class Echo(WebSocketServerProtocol):
    def onConnect(self, request):
        asked = {name: values[0] for name, values in request.params.items()}
        self.autoFragmentSize = int(asked.get("fragment", 0))
        self.perMessageCompressionAccept = lambda offers: accept(offers, asked)

    def onMessage(self, payload, isBinary):
        self.sendMessage(payload, isBinary)


def accept(offers, asked):
    """Takes the first offer, with what the client has asked for in its path."""
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(
                offer,
                request_no_context_takeover=asked.get("takeover") == "no",
                request_max_window_bits=int(asked.get("bits", 0)),
            )
    return None


async def serve(address, port):
    factory = WebSocketServerFactory()
    factory.protocol = Echo
    # violations are answered by a close frame that names them, and never by silence
    factory.setProtocolOptions(failByDrop=False, utf8validateIncoming=True, requireMaskedClientFrames=True, openHandshakeTimeout=30)
    server = await asyncio.get_running_loop().create_server(factory, address, port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(os.environ["SANDBOX_IP"], int(sys.argv[1])))
