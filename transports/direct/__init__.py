"""What the wires without a broker share: both ends of the contract, over a `Link`.

The dispatcher's end carries the broker (`executor.broker`), the worker's end one session for each
dispatcher (`executor.session`). Both of these are pure; here they meet the link and the clock.
"""

from transports.direct.dispatcher import DirectDispatcherEnd
from transports.direct.worker import DirectWorkerEnd

__all__ = ["DirectDispatcherEnd", "DirectWorkerEnd"]
