"""The kinds of answers, one file a kind, each with a `judge` and `VERIFIER` (name@version).

`choice`, `exact` and `numeric` are pure Python bounded by the length of their input, and run where they are called.
`math` hands expressions to a computer algebra system that may never return: only a worker process calls its `judge`. `code` and
`rubric` wait for a sandbox or for a policy, and are objects with an asynchronous `judge`.
"""
