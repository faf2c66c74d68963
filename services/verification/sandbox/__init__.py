"""Programs that nobody trusts, each in namespaces of its own, by bubblewrap.

`start` is the service's side, `inside` the first program that runs within.
"""
