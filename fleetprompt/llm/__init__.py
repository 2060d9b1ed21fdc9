"""Asking a language model: one question to an OpenAI-compatible endpoint, within hard bounds.

The operator names the endpoint in the settings (``FLEETPROMPT_LLM_URL`` and its neighbours; unset,
nothing is ever asked). A package that a tenant has switched a model on for then does::

    endpoint = configured(settings)                       # None: the operator offers none
    outcome = await complete(database, client, tenant, endpoint, [Message("system", …), …])
    if isinstance(outcome, Completion):
        outcome.text, outcome.usage, outcome.seconds
    else:
        outcome.kind, outcome.message                     # one of a closed set, fit to be shown

``complete`` raises for nothing that the other side does. Before a byte is sent, the most that the
call can cost is taken from the tenant's budget of the UTC day, in the tenant's own database and in
one statement, so that no number of callers passes the cap together; what was not used is given back.
The request goes through ``fleetprompt.outbound.http``: vetted and pinned addresses, no redirect, a
bounded answer, one deadline. Neither question nor answer is stored or logged here, and the key is
shown nowhere.

What comes back was written by a machine that read tenant text: it is untrusted, and whoever shows it
treats it as such.
"""

from fleetprompt.llm.chat import Message, complete
from fleetprompt.llm.endpoint import Endpoint, configured
from fleetprompt.llm.outcome import Completion, Failure, FailureKind, Outcome, Usage

__all__ = [
    "Completion",
    "Endpoint",
    "Failure",
    "FailureKind",
    "Message",
    "Outcome",
    "Usage",
    "complete",
    "configured",
]
