"""One check judged as the gate judges it, for tests that need no pytest run."""

from sae_checks.run.judge import Judge


def judge(executor, request, sae_id, check, together=()):
    """The result of *check*; what *executor* has measured already is not measured again."""
    return Judge(request, executor).result((sae_id, check.name), together)
