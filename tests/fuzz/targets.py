"""All that is fuzzed, by name."""

from tests.fuzz.buses import bus, transfers
from tests.fuzz.connections import CONNECTIONS
from tests.fuzz.decoders import DECODERS

TARGETS = {**DECODERS, "bus": bus, "transfers": transfers, **CONNECTIONS}
