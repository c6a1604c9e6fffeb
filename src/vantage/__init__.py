"""Vantage: policy gradients you can see."""

from vantage.batch import Batch
from vantage.errors import InputError
from vantage.policies import Categorical, Gaussian, SoftmaxTable, Value

__version__ = "0.1.0"
__all__ = ["Batch", "Categorical", "Gaussian", "InputError", "SoftmaxTable", "Value"]
