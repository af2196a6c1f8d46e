"""Which devices are to have which adapter version: groups, rollouts, and what devices did with it."""
