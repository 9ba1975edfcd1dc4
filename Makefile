# Short names for what the scripts do.

chat:    ; scripts/chat
test:    ; scripts/test
fuzz:    ; scripts/fuzz
soak:    ; scripts/soak
workers: ; scripts/workers
differential: ; scripts/differential
conformance: ; scripts/conformance
lint:    ; scripts/test tests.test_checks.LintTests
types:   ; scripts/test tests.test_checks.TypeTests
docs:    ; scripts/test tests.interop.test_site.SiteTests
format:  ; .venv/bin/ruff format . && .venv/bin/ruff check --fix .

.PHONY: chat test fuzz soak workers differential conformance lint types docs format
