"""The assertions of the inherited contract are to explain themselves as those of test modules do."""

import pytest

pytest.register_assert_rewrite("poller.testing.sink_contract")
