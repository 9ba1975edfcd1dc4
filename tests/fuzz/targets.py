"""All that is fuzzed, by name."""

from tests.fuzz.connections import CONNECTIONS
from tests.fuzz.decoders import DECODERS

TARGETS = {**DECODERS, **CONNECTIONS}
