"""Settings of every test."""

import pytest
import torch
import typechecker


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(typechecker, "typechecker")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
