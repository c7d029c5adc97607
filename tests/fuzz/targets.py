"""All that is fuzzed, by name."""

from __future__ import annotations

from tests.fuzz.certificates import CERTIFICATES
from tests.fuzz.children import CHILDREN
from tests.fuzz.codec import CODEC
from tests.fuzz.ends import ENDS
from tests.fuzz.messages import MESSAGES
from tests.fuzz.rabbit import RABBIT
from tests.fuzz.streams import STREAMS
from tests.fuzz.target import Target
from tests.fuzz.texts import TEXTS

_ALL = (*CODEC, *MESSAGES, *CHILDREN, *STREAMS, *TEXTS, *CERTIFICATES, *ENDS, *RABBIT)

TARGETS: dict[str, Target] = {target.name: target for target in _ALL}
