"""Settings of every test."""

import os

import pytest
import torch
import typechecker


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(typechecker, "typechecker")


@pytest.fixture(autouse=True)
def _threads() -> None:
    """One; as many as OMP_NUM_THREADS says where the tests are tried with more."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
