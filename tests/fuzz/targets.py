"""All that is fuzzed, by name."""

from tests.fuzz.buses import bus
from tests.fuzz.connections import CONNECTIONS
from tests.fuzz.decoders import DECODERS

TARGETS = {**DECODERS, "bus": bus, **CONNECTIONS}
