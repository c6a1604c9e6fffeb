"""Update rules: what is done with a batch, beside which estimator weighs it.

Ascent    one step along ĝ, then the fit of V (REINFORCE and its kin, VPG)
Epochs    several epochs of minibatch steps, V trained jointly (PPO, A2C, V-trace)
Phasic    epochs, and after every so many updates a phase that trains V through the policy (PPG)
Replay    a step on each batch and several on a memory of earlier ones (ACER)
Natural   one step along F⁻¹ĝ of a given KL, with a line search if wanted (TRPO)
KFAC      one step along F⁻¹ĝ, F Kronecker-factored, for policy and V, within a KL (ACKTR)

`Update` says what a rule is: whether it wants ĝ, which optimisers it steps, and how it changes the
policy. One of your own needs no more.
"""

from vantage.estimators import ratios
from vantage.estimators.estimator import Estimator
from vantage.training.ascent import WHOLE_BATCH, Ascent, Fit
from vantage.training.epochs import Epochs
from vantage.training.interface import Memory, Update
from vantage.training.kfac import KFAC
from vantage.training.natural import Natural
from vantage.training.phasic import Phasic
from vantage.training.replay import Replay

__all__ = [
    "KFAC",
    "WHOLE_BATCH",
    "Ascent",
    "Epochs",
    "Fit",
    "Memory",
    "Natural",
    "Phasic",
    "Replay",
    "Update",
    "default",
]


def default(estimator: Estimator) -> Update:
    """`Epochs` for an estimator that looks at the policy as it is now, by a ratio or an importance,
    and so is made to see a batch more than once; else `Ascent`.

    >>> import vantage as vt
    >>> type(default(vt.estimators.ppo())).__name__
    'Epochs'
    """
    return Ascent() if estimator.ratio is ratios.none and not estimator.reweighs else Epochs()
