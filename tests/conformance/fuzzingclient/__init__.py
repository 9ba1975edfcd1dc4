"""
Autobahn's test suite for WebSocket: 517 cases, played against echoes of our server (the suite's mode
`fuzzingclient`) and of our client (its mode `fuzzingserver`).

The suite, `autobahntestsuite` on PyPI, is Python 2. It is fetched by its name, converted, and runs in an
environment of its own, with the old Autobahn that it was written for: nothing of it is in this tree, and a
mistake in the Autobahn that serves cannot cancel itself out.

`suite`
    fetches it, and runs cases
`convert`, `fuzzer`
    the programs that do so, in that environment
`visitor`
    the client's echo
`runs`
    the ways to play cases
`verdicts`
    what came of the cases
`mutants`
    echoes that are broken on purpose: what proves that the cases find something
`__main__`
    all cases, against tac/conformance.tac and the client, and the report in docs/conformance.rst
"""
