"""The domain of FleetPrompt: signals in, directives out, and the history between them.

No web framework and no orchestrator is imported here, so that everything runs in a plain test.
"""
