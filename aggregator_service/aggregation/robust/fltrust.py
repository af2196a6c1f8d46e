"""FLTrust (Cao, Fang, Liu, Gong, arXiv 2012.13995, section 4): updates are measured by one that is trusted.

    TS_k = ReLU(cos(D_k, D_0)),   result = 1 / sum_j TS_j  sum_k TS_k  ||D_0|| / ||D_k||  D_k

where D_0 is what the server itself learned from a small clean data set, in the same round.

1. Trust is the cosine of changes, in product space; a negative one counts as none, and such updates are
   left out. Example counts are not looked at.
2. Each change is brought to the length of D_0, the short ones up to it as well. It is moved along its line of
   factors (`line.py`), which is D_k's own direction where one factor is trained, and bends where both are;
   and no further than `clip_factor` times the movement of D_0's factors. A change that is short in product
   space because its factors cancel would otherwise be worth any factors to a rule that averages these.
3. The rule takes its mean with the trust as weights.

The service has no data: D_0 comes from a device that the operator runs, on data that he vouches for
(`Defence.trusted_device`). The paper keeps D_0 out of the mean. Here that device may be one of the cohort as
well, with trust 1; if it is, a round in which it learned something is never left without an update.
"""

from __future__ import annotations

import numpy as np

from aggregator_service.aggregation.stacks import Floats


def trust(products: Floats, norms: Floats, trusted_norm: float) -> Floats:
    """The trust in each update, 0 to 1.

    Args:
        products: <D_k, D_0> of each update.
        norms: ||D_k||; what is zero earns no trust, and nothing does where `trusted_norm` is zero.
    """
    lengths = norms * trusted_norm
    cosines = np.divide(products, lengths, out=np.zeros(len(products)), where=lengths > 0)
    return np.clip(cosines, 0.0, 1.0)
